"""`slmhub` on the data folder of the test's hub."""

from collections.abc import Iterator

import pytest
from commanding import Slmhub, serving

from hub import jobs
from hub.config import Settings


@pytest.fixture
def slmhub(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Slmhub:
    """Run commands here; nothing but the data folder is set."""
    for name in ("HUB_URL", "HUB_TOKEN", "HUB_ADMIN_TOKEN", "HUB_HOST", "HUB_PORT"):
        monkeypatch.delenv(name, raising=False)
    made = Slmhub(monkeypatch, capsys)
    made.set(HUB_DATA=str(settings.data), COLUMNS="200")
    return made


@pytest.fixture
def hub(settings: Settings, slmhub: Slmhub, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The hub answers, and commands know where; no Redis is told of jobs."""
    monkeypatch.setattr(jobs, "notify", lambda *_: False)
    with serving(settings) as address:
        slmhub.set(HUB_URL=address)
        yield address
