"""`slmhub plugins`: states without running a plugin, failures in words."""

import subprocess
import sys
from pathlib import Path

import pytest
from commanding import Slmhub

from hub.config import Settings


def test_the_list_has_every_plugin_and_its_state(slmhub: Slmhub, tmp_path: Path) -> None:
    broken = tmp_path / "mine" / "torn"
    broken.mkdir(parents=True)
    (broken / "plugin.toml").write_text("api = ")
    slmhub.set(HUB_PLUGINS=str(broken.parent))
    rows = {row["name"]: row for row in slmhub("plugins", "list", "--json").json}
    assert {"echo", "gguf", "torn"} <= set(rows)
    assert rows["torn"]["state"] == "broken"
    assert rows["torn"]["reason"]
    assert "Q4_K_M" in rows["gguf"]["variants"]
    people = slmhub("plugins", "list")
    assert (people.code, people.err) == (0, "")
    assert "not installed" in people.out


@pytest.mark.slow
@pytest.mark.parametrize("command", ["install", "check"])
def test_an_unknown_plugin_names_the_known(settings: Settings, command: str) -> None:
    argv = [sys.executable, "-m", "hub.cli", "plugins", command, "nope", "--json"]
    env = {"HUB_DATA": str(settings.data), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=30, check=False
    )  # it starts a process of the workers, whose words and exit code it hands on
    assert (done.returncode, done.stdout) == (1, "")
    assert '"kind": "unknown_plugin"' in done.stderr
    assert "echo, gguf" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["install", "check"])
def test_folders_of_the_caller_are_not_taken_for_the_hubs_code(
    settings: Settings, tmp_path: Path, command: str
) -> None:
    for name in ("hub", "workers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not the hub')")
    argv = [sys.executable, "-P", "-m", "hub.cli", "plugins", command, "nope"]
    env = {"HUB_DATA": str(settings.data), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "There is no plugin 'nope'" in done.stderr
