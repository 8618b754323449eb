"""What every test may ask for: a hub in a temporary folder, and no network but loopback."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from xdist.scheduler import LoadFileScheduling

from hub import db
from hub.config import Settings

pytest_plugins = ["postgres", "redis_server"]

# An example takes as long as a busy machine lets it.
hypothesis.settings.register_profile(
    "patient",
    parent=hypothesis.settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The settings of an empty hub on SQLite, its folders made and its database migrated."""
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    made = Settings(data=tmp_path / "data")
    made.data.mkdir()
    db.migrate(made.database)
    yield made
    db.engine(made.database).dispose()


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not (host.startswith("127.") or host in ("::1", "localhost", "0.0.0.0")):
                raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out tests by the file, as --dist loadfile does; but plugins' own tests one by one.

    They take minutes and share nothing, and are last: in one process the other one would wait.
    """
    if config.getoption("dist") != "loadfile":
        return None

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "test_own_tests" in nodeid else super()._split_scope(nodeid)

    return Files(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where everything is installed, as .ci/run has it, a test that skips is a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("HUB_TEST_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though HUB_TEST_NO_SKIP is set: {report.longrepr}"
