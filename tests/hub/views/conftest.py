"""What holds for all views: a plugin may take as long as a busy machine lets it."""

import pytest


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait for real plugins; a test of one that is late has less patience itself."""
    for name in (
        "hub.asking.SECONDS",
        "hub.prospects.PATIENCE",
        "hub.views.model.PATIENCE",
        "hub.views.model.SECONDS",
        "hub.views.verdicts.PATIENCE",
    ):
        monkeypatch.setattr(name, 60)
