"""Every plugin's own test, in the environment of the plugin, as `slmhub plugins check` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/test_convert.py"))


@pytest.mark.slow
@pytest.mark.plugin
@pytest.mark.parametrize("name", PLUGINS)
def test_the_plugin_passes_its_own_test(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers.plugins", "check", name, "--test-only"]
    environment = os.environ | {"HUB_DATA": str(tmp_path / "data")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    assert "passed" in done.stdout
