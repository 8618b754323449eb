"""A real worker whose conversions are a plugin of a few lines: sleep, then publish one artefact.

    python stub_worker.py    with the settings in the environment, and
    STUB_TRACE               a file that gets a line for every start and end of a conversion
    STUB_VISIBILITY          Redis' visibility timeout in seconds, to show that it does not matter
    STUB_LOOKS               how often the watchdog looks before it ends a worker

The conversion runs in a child process of its own, as a real one does, which ends with its worker.
"""

import os
import signal
import subprocess
import sys
import time
from ctypes import CDLL
from pathlib import Path

from hub import artefacts, leases
from hub.artefacts import Made, Recipe, Source
from hub.config import Settings
from hub.formats import Format
from hub.joblog import JobLog
from hub.manifest import Variant
from workers import app, tasks, watchdog
from workers.holding import Cancelled, Holding

FORMAT = Format(
    folder=Path("/nowhere"),
    name="stub",
    title="Stub",
    version="1",
    runtime="nothing",
    summary="For tests",
    repo="{source}-Stub",
    variants=[Variant(name=f"v{n}", bits=4, class_="low", note="A test") for n in range(1000)],
)


def trace(word: str, held: Holding, more: object = "") -> None:
    """One write a line: lines of several processes do not mix."""
    line = f"{word} {held.claim.id} {held.claim.token} {os.getpid()} {more}\n"
    descriptor = os.open(os.environ["STUB_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def _end_with_parent() -> None:
    CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def convert(settings: Settings, held: Holding, folder: Path, joblog: JobLog) -> None:
    """Sleep as long as the options say in a child, then publish."""
    request = held.claim.request
    seconds = request["options"]["first" if held.claim.token == 1 else "sleep"]
    code = f"import time; time.sleep({seconds})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], preexec_fn=_end_with_parent, start_new_session=True
    )
    trace("start", held, child.pid)
    try:
        while child.poll() is None:
            if held.ended():
                trace("ended", held, held.reason)
                raise Cancelled
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    if child.returncode != 0:
        raise SystemError(f"the child ended with {child.returncode}")
    (variant,) = request["variants"]
    output = folder / "output"
    output.mkdir()
    (output / f"{variant}.gguf").write_bytes(f"{variant} of {held.claim.commit}".encode() * 1000)
    leases.publishing(settings, held.claim)
    artefacts.publish(
        settings,
        held.claim,
        FORMAT,
        Source(held.claim.repo, held.claim.commit or "", [], {}),
        Recipe(request["options"], {}, "strict"),
        Made(variant, output),
    )
    trace("published", held)


def main() -> int:
    tasks.KINDS["convert"] = convert
    settings = Settings()
    # A look is a second here: on a busy machine a healthy worker may need more than eight.
    watchdog.LOOKS = int(os.environ.get("STUB_LOOKS", "100"))
    if seconds := os.environ.get("STUB_VISIBILITY"):
        make = app.make

        def impatient(given: Settings) -> app.Celery:
            made = make(given)
            made.conf.broker_transport_options |= {
                "visibility_timeout": float(seconds),
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            }
            return made

        app.make = impatient
    return app.main(settings)


if __name__ == "__main__":
    sys.exit(main())
