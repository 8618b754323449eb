"""How long people wait for the hub itself: to start, stop, accept, cancel, whatever else happens.

    python -m bench.waits [--runs 3] [--busy 0]

Prints each median beside its goal, and requests as ratios to the same request on a quiet hub.
`--busy` starts so many processes that do nothing but keep a processor busy.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from bench.convert import finish
from bench.embedded import hub
from hub import formats
from hub.client import Client
from hub.config import Settings
from hub.sample import sample_folder
from workers import environments

REPO = "org/model"
GOALS = {
    "first start": "",
    "second start": "under 5 s",
    "accept": "",
    "accept, Redis silent": "under 0.5 s",
    "accept, Redis gone": "under 0.5 s",
    "cancel": "under 3 s",
    "stop, a conversion running": "under 10 s",
    "stop, idle": "under 10 s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0)
    arguments = parser.parse_args()
    loop = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(loop) for _ in range(arguments.busy)]
    try:
        seen = [once() for _ in range(arguments.runs)]
    finally:
        for process in busy:
            process.kill()
    for name, goal in GOALS.items():
        seconds = statistics.median(run[name] for run in seen)
        ratio = statistics.median(run[name] / run["accept"] for run in seen)
        more = f"  {ratio:.1f} x a quiet hub's" if name.startswith("accept,") else ""
        print(f"{name:28} {seconds:6.2f} s  {goal}{more}")


def once() -> dict[str, float]:
    """Seconds of every wait in one life of a hub, which starts twice."""
    seen: dict[str, float] = {}

    def timed(name: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = act()
        seen[name] = time.perf_counter() - began
        return found

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        settings = Settings(data=Path(name))
        environments.install(settings, formats.get(settings, "echo"), lambda _line: None)
        client = timed("first start", lambda: stack.enter_context(hub(settings.data)))
        body = {"repo": REPO, "folder": str(sample_folder())}
        finish(client, client.call("POST", "/mirrors", json=body))
        timed("stop, idle", stack.close)
        client = timed("second start", lambda: stack.enter_context(hub(settings.data)))
        finish(client, convert(client, 0.0))  # what is asked for the first time is read and kept
        job = timed("accept", lambda: convert(client, 60.0))
        running(client, job)
        timed("cancel", lambda: cancelled(client, job))
        family = psutil.Process().children(recursive=True)
        redis = next(process for process in family if "redis" in process.name())
        redis.suspend()
        job = timed("accept, Redis silent", lambda: convert(client, 61.0))
        redis.kill()
        timed("accept, Redis gone", lambda: convert(client, 62.0))
        running(client, job)
        timed("stop, a conversion running", stack.close)
    return seen


def convert(client: Client, sleep: float) -> dict[str, Any]:
    body = {"repo": REPO, "plugin": "echo", "variants": ["plain"], "options": {"sleep": sleep}}
    return dict(client.call("POST", "/conversions", json=body))


def running(client: Client, job: dict[str, Any]) -> None:
    while "sleeping" not in client.call("GET", f"/jobs/{job['id']}")["message"]:
        time.sleep(0.05)


def cancelled(client: Client, job: dict[str, Any]) -> None:
    client.call("DELETE", f"/jobs/{job['id']}")
    while client.call("GET", f"/jobs/{job['id']}")["state"] != "cancelled":
        time.sleep(0.05)


if __name__ == "__main__":
    main()
