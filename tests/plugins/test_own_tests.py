"""Every plugin's own test, in the environment of the plugin, as `slmhub plugins check` runs it."""

import os
import subprocess
import sys

import installed
import pytest


@pytest.mark.slow
@pytest.mark.plugin
@pytest.mark.parametrize("name", installed.PLUGINS)
def test_the_plugin_passes_its_own_test(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings, _ = installed.install(tmp_path_factory, name)
    command = [sys.executable, "-m", "workers.plugins", "check", name, "--test-only"]
    environment = os.environ | {"HUB_DATA": str(settings.data)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    assert "passed" in done.stdout
