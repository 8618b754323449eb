"""Environments: built beside each other, swapped by a link, clean after every ending."""

import base64
import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hub import asking, formats
from hub.config import ROOT, Settings
from hub.environments import in_use
from hub.errors import Unprocessable
from hub.formats import Format
from workers import environments
from workers.environments import InstallFailed


def wheel(folder: Path, version: str, body: str = "") -> None:
    """Write a tiny package, so that nothing is fetched."""
    folder.mkdir(exist_ok=True)
    info = f"toolkit-{version}.dist-info"
    files = {
        "toolkit.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: toolkit\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{name},sha256={digest.decode()},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"toolkit-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages that pip is configured to find; uv must find them too."""
    folder = tmp_path / "wheels"
    wheel(folder, "1.0")
    wheel(folder, "2.0", "raise ImportError('it does not fit')")
    for name in ("UV_FIND_LINKS", "UV_NO_INDEX", "UV_INDEX", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


def pinned(tmp_path: Path, pins: str) -> Format:
    """The echo plugin with requirements and a smoke import."""
    folder = tmp_path / "plugins" / "echo"
    if not folder.exists():
        shutil.copytree(ROOT / "plugins" / "echo", folder)
        text = (folder / "plugin.toml").read_text()
        head = 'smoke = ["toolkit"]\ntools = ["toolkit"]\n'
        (folder / "plugin.toml").write_text(text.replace("\n[[", f"\n{head}\n[[", 1))
    (folder / "requirements.txt").write_text(pins)
    return formats.read(folder)


def quiet(_line: str) -> None:
    """Take a line of progress."""


def folders(settings: Settings) -> list[str]:
    return [path.name for path in (settings.environments / "echo").iterdir() if path.is_dir()]


def test_an_environment_without_requirements(settings: Settings) -> None:
    fmt = formats.get(settings, "echo")
    assert formats.state(settings, fmt).name == "not installed"
    folder = environments.install(settings, fmt, quiet)
    assert formats.state(settings, fmt).ready
    assert environments.install(settings, fmt, quiet) == folder
    assert environments.python(settings, fmt).exists()
    assert environments.tool_versions(settings, fmt) == {}


def test_pins_are_installed_proved_and_recorded(
    settings: Settings, tmp_path: Path, wheels: Path
) -> None:
    fmt = pinned(tmp_path, "toolkit==1.0\n")
    lines: list[str] = []
    environments.install(settings, fmt, lines.append)
    assert formats.state(settings, fmt).ready
    assert environments.tool_versions(settings, fmt) == {"toolkit": "1.0"}
    assert any("toolkit==1.0" in line for line in lines)


def test_a_failure_tells_why_and_leaves_the_old_one(
    settings: Settings, tmp_path: Path, wheels: Path
) -> None:
    before = environments.install(settings, pinned(tmp_path, "toolkit==1.0\n"), quiet)
    for pins, said in [("toolkit==9.0\n", "toolkit==9.0"), ("toolkit==2.0\n", "it does not fit")]:
        fmt = pinned(tmp_path, pins)
        with pytest.raises(InstallFailed, match=said):
            environments.install(settings, fmt, quiet)
        state = formats.state(settings, fmt)
        assert state.name == "broken"
        assert said in state.reason
    assert formats.state(settings, pinned(tmp_path, "toolkit==1.0\n")).ready
    assert before.is_dir()


def test_a_forced_rebuild_swaps_and_a_failed_one_does_not(
    settings: Settings, tmp_path: Path, wheels: Path
) -> None:
    fmt = pinned(tmp_path, "toolkit==1.0\n")
    first = environments.install(settings, fmt, quiet)
    second = environments.install(settings, fmt, quiet, force=True)
    assert first != second
    assert not first.exists()
    shutil.rmtree(wheels)
    shutil.rmtree(tmp_path / "cache")
    wheels.mkdir()
    with pytest.raises(InstallFailed):
        environments.install(settings, fmt, quiet, force=True)
    assert formats.state(settings, fmt).ready
    assert formats.environment(settings, fmt).resolve() == second


def test_an_environment_in_use_is_not_removed(settings: Settings) -> None:
    fmt = formats.get(settings, "echo")
    first = environments.install(settings, fmt, quiet)
    with in_use(formats.environment(settings, fmt)):
        environments.install(settings, fmt, quiet, force=True)
        assert first.exists()
    environments.install(settings, fmt, quiet, force=True)
    assert not first.exists()


def test_a_killed_installation_counts_for_nothing(settings: Settings) -> None:
    fmt = formats.get(settings, "echo")
    script = (
        "import os, sys\n"
        "from hub import formats; from hub.config import Settings\n"
        "from workers import environments\n"
        "settings = Settings(data=sys.argv[1]); fmt = formats.get(settings, 'echo')\n"
        "smoke = environments._smoke\n"
        "def stuck(*given):\n"
        "    print('built', flush=True); sys.stdin.read()\n"
        "environments._smoke = stuck\n"
        "environments.install(settings, fmt, lambda line: None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(settings.data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"built\n"
        assert formats.state(settings, fmt).name == "installing"
        process.send_signal(signal.SIGKILL)
    [left] = folders(settings)
    assert formats.state(settings, fmt).name == "not installed"
    environments.install(settings, fmt, quiet)
    assert left not in folders(settings)
    assert formats.state(settings, fmt).ready


def test_two_installations_at_once_are_one(settings: Settings) -> None:
    fmt = formats.get(settings, "echo")
    made: list[Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(environments.install(settings, fmt, quiet)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert made[0].is_dir()


def test_a_broken_plugin_is_not_installed(settings: Settings, tmp_path: Path) -> None:
    fmt = pinned(tmp_path, "")
    with pytest.raises(Unprocessable, match="nonsense"):
        environments.install(settings, fmt.model_copy(update={"problem": "nonsense"}), quiet)
    assert not settings.environments.exists()


@pytest.mark.slow
def test_supports_runs_in_the_plugins_own_process(settings: Settings) -> None:
    fmt = formats.get(settings, "echo")
    environments.install(settings, fmt, quiet)
    assert asking.supports(settings, fmt, {"model_type": "llama"}, ["config.json"]) is None
    said = asking.supports(settings, fmt, {"model_type": "unsupported"}, ["config.json"])
    assert said == "Echo does not know the architecture 'unsupported'."
    assert "config.json" in str(asking.supports(settings, fmt, {}, ["model.bin"]))
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"deeper": deep}
    assert "too deeply" in str(asking.supports(settings, fmt, deep, ["config.json"]))
