"""The first conversion, shown on the model that comes with the hub."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from hub import formats
from hub.client import Client
from hub.commands.jobs import follow
from hub.config import ROOT, Settings
from hub.errors import HubError, NotFound
from hub.sizes import size

VARIANTS = ["Q4_K_M", "Q8_0"]


def sample_folder() -> Path:
    """The folder of the sample model, samples/ORG/NAME."""
    found = sorted(path.parent for path in (ROOT / "samples").glob("*/*/config.json"))
    if not found:
        raise NotFound("no_sample", "The sample model is not there.", "Take a whole checkout.")
    return found[0]


def first_conversion(settings: Settings) -> None:
    """Install the GGUF plugin, import the sample, convert it; print where the results are.

    What was done before is found again and not repeated.
    """
    plugin = formats.get(settings, "gguf")
    if formats.state(settings, plugin).name != "ready":
        _install(plugin.name)
    folder = sample_folder()
    repo = f"{folder.parent.name}/{folder.name}"
    with Client(settings) as hub:
        mirrored = follow(
            hub, hub.call("POST", "/mirrors", json={"repo": repo, "folder": str(folder)})
        )
        _must_be_done(mirrored)
        body = {"repo": repo, "plugin": plugin.name, "variants": VARIANTS}
        converted = follow(hub, hub.call("POST", "/conversions", json=body))
        _must_be_done(converted)
    print(f"The model's page:  {settings.base_url}/{repo}")
    for artefact in converted["artefacts"]:
        for file in artefact["files"]:
            if file["path"].endswith(".gguf"):
                print(f"{artefact['variant']:8} {size(file['size']):>8}:  {file['url']}")


def _install(name: str) -> None:
    """Build a plugin's environment in a process of the workers, which ends with this one."""
    argv = [sys.executable, "-P", "-m", "workers.plugins", "install", name]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            code = process.wait()
        except BaseException:
            # It has started uv, which would go on alone.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if code:
        raise HubError(
            "install_failed",
            f"The environment of the plugin {name} could not be built.",
            f"The lines above say why; `slmhub plugins install {name}` tries again.",
        )


def _must_be_done(job: dict[str, object]) -> None:
    if job["state"] != "done":
        error = job["error"]
        words = error if isinstance(error, dict) else {}
        raise HubError(
            str(words.get("kind", "sample_failed")),
            f"The job {job['id']} {job['state']}: {words.get('message', '')}",
            str(words.get("hint", "")),
        )
