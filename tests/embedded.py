"""The embedded hub as a process of a test: `slmhub up` on a free port in a temporary folder."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
from fakehub import tiny_model
from servers import free_port
from workbench import PATIENCE, wait

from hub.config import ROOT

SLMHUB = [sys.executable, "-m", "hub.cli"]
_PATIENT = """
from hub import cli, up
up.STOP_SECONDS = up.START_SECONDS = 110
up.Child.flapping = lambda child: len(child.started) >= 5
cli.main()
"""
UP = [sys.executable, "-c", _PATIENT, "up"]
"""`slmhub up` for a busy machine: its children get nearly PATIENCE to start and to end, and one
that ends five times keeps ending, however long that takes."""


def environment(data: Path, **more: str) -> dict[str, str]:
    """The surroundings of a command on a data folder, without what the machine's own say."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    return own | {"HUB_DATA": str(data), "PYTHONPATH": str(ROOT)} | more


def slmhub(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*SLMHUB, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def model_folder(folder: Path) -> Path:
    """A small model as files."""
    folder.mkdir()
    for name, content in tiny_model().items():
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    return folder


def using(data: Path) -> list[psutil.Process]:
    """Every process whose environment names a data folder, but for the ended ones."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HUB_DATA") == str(data):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


class Embedded:
    """One data folder, its hub, and everything that was ever seen running for it."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = environment(self.data, HUB_PORT=str(self.port), **more)
        self.process: psutil.Popen | None = None
        self.seen: set[psutil.Process] = set()
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return slmhub(self.env, *arguments)

    def up(self) -> None:
        """Start the hub and wait until it says where it is."""
        self.folder.mkdir(exist_ok=True)
        out, err = self.folder / "out", self.folder / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            self.process = psutil.Popen(
                UP, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                stdout=stdout, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        process = self.process
        wait(lambda: process.poll() is not None or self.url in out.read_text(), "an address")
        assert process.poll() is None, err.read_text() + self.logs()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in (self.data / "logs").glob("*.log"))

    def family(self) -> set[psutil.Process]:
        """Every process of the hub that runs now, the supervisor too."""
        assert self.process is not None
        found = {psutil.Process(self.process.pid), *self.process.children(recursive=True)}
        self.seen |= found | set(using(self.data))
        return found

    def child(self, name: str) -> psutil.Process | None:
        """A child of the supervisor: redis, web or worker; None while there is none."""
        assert self.process is not None
        words = {"redis": "redis-server", "web": "hub.gunicorn", "worker": "workers"}
        for one in self.process.children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if words[name] in " ".join(one.cmdline()):
                    return one
        return None

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the supervisor alone, and wait for its end; its exit code."""
        assert self.process is not None
        self.family()
        self.process.send_signal(number)
        return int(self.process.wait(PATIENCE))

    def left(self) -> list[psutil.Process]:
        """What still runs of all that was seen, and whatever else names the data folder."""
        found = []
        for one in {*self.seen, *using(self.data)}:
            try:
                # is_running compares the time of birth too: a number that was given again is none.
                if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
            except psutil.NoSuchProcess:
                continue
        return found

    def gone(self) -> None:
        """Wait until nothing is left: what has a session of its own may die a moment later."""
        try:
            wait(lambda: not self.left())
        except TimeoutError as error:
            raise AssertionError(f"these are left: {self.left()}") from error

    def clean(self) -> None:
        """End whatever a failed test left."""
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            self.family()
            self.process.kill()
            self.process.wait(PATIENCE)
        for one in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    # -- the API

    def mirror(self, name: str = "org/model") -> None:
        folder = self.folder / "model"
        if not folder.exists():
            model_folder(folder)
        self.done(self.post("mirrors", repo=name, folder=str(folder)))

    def convert(self, *variants: str, **options: object) -> dict[str, Any]:
        body = {"plugin": "echo", "variants": list(variants), "options": options}
        return self.post("conversions", repo="org/model", **body)

    def post(self, path: str, **body: object) -> dict[str, Any]:
        answer = self.http.post(f"/api/v1/{path}", json=body)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def job(self, number: int) -> dict[str, Any]:
        return dict(self.http.get(f"/api/v1/jobs/{number}").json())

    def done(self, job: dict[str, Any]) -> dict[str, Any]:
        final = ("done", "failed", "cancelled")
        wait(lambda: self.job(job["id"])["state"] in final, f"the end of {job}")
        found = self.job(job["id"])
        assert found["state"] == "done", found
        return found

    def sleeping(self, job: dict[str, Any]) -> None:
        """Wait until a conversion sleeps in its sandbox."""
        try:
            wait(lambda: "sleeping" in self.job(job["id"])["message"])
        except TimeoutError as error:
            raise AssertionError(f"{self.job(job['id'])}\n{self.logs()}") from error
