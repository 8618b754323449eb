"""A hub with real workers to kill: what tests/workers/test_app.py and test_chaos.py stand on."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis
from redis_server import RedisServer
from sqlmodel import col, select

from hub import artefacts, db, jobs
from hub.blobs import BlobStore
from hub.config import ROOT, Settings
from hub.models import ACTIVE, Artefact, Job
from hub.queue import QUEUE
from hub.repos import files, find, resolve

STUB = Path(__file__).parent / "workers" / "stub_worker.py"
COMMIT = "c" * 40
FAST = {"heartbeat": 0.5, "lease": 60.0, "reconcile": 1.0}
PATIENCE = 120.0
"""Seconds after which a test gives up on what should happen at once: the machine may be busy. How
long people wait is measured by bench/waits.py."""


def wait(condition: Callable[[], object], what: str = "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what or condition)
        time.sleep(0.05)


class Bench:
    """A hub with jobs, and workers that a test starts and kills."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.trace = folder / "trace"
        self.log = folder / "worker.log"
        self.workers: list[psutil.Popen] = []
        self.environment: dict[str, str] = {}

    def miss_soon(self) -> None:
        """Let workers that are started from now on be missed after five seconds, not a minute."""
        self.settings = self.settings.model_copy(update={"lease": 5.0})

    def start(self, **environment: str) -> psutil.Popen:
        """Start a worker; it need not be ready yet."""
        values = {
            name: getattr(self.settings, name)
            for name in ("data", "database_url", "redis_url", "slots", *FAST)
        }
        variables = {f"HUB_{name.upper()}": str(value) for name, value in values.items()}
        with self.log.open("ab") as log:
            process = psutil.Popen(
                [sys.executable, str(STUB)],
                cwd=ROOT,
                env=os.environ
                | variables
                | self.environment
                | environment
                | {"STUB_TRACE": str(self.trace), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.workers.append(process)
        return process

    def stop(self) -> None:
        for worker in self.workers:
            for process in [*self.children(worker), worker]:
                kill(process)
            worker.wait(PATIENCE)

    def children(self, worker: psutil.Popen) -> list[psutil.Process]:
        try:
            found: list[psutil.Process] = worker.children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return found

    def submit(self, number: int = 0, sleep: float = 0.3, first: float | None = None) -> int:
        """Queue a conversion that takes `sleep` seconds, but `first` when it is first claimed."""
        options = {"sleep": sleep, "first": sleep if first is None else first}
        # The key leaves the sleep out: jobs that differ in it alone are the same to the invariants.
        key = artefacts.artefact_key("org/model", COMMIT, stub_format(), f"v{number}", options)
        job = jobs.submit(
            self.settings,
            Job(
                kind="convert",
                request_key=jobs.request_key("convert", [key]),
                repo="org/model",
                commit=COMMIT,
                plugin="stub",
                request={
                    "variants": [f"v{number}"],
                    "options": options,
                    "keys": {f"v{number}": key},
                },
            ),
        )
        assert job.id is not None
        return job.id

    def job(self, job_id: int) -> Job:
        with db.reading(self.settings.database) as session:
            return jobs.get(session, job_id)

    def states(self) -> dict[int, str]:
        with db.reading(self.settings.database) as session:
            return {job.id or 0: job.state for job in session.exec(select(Job))}

    def wait_for(self, job_id: int, state: str) -> Job:
        try:
            wait(lambda: self.job(job_id).state == state)
        except TimeoutError as error:
            raise AssertionError(f"job {job_id} is not {state}\n{self.story()}") from error
        return self.job(job_id)

    def story(self) -> str:
        """What someone needs who asks why jobs are not over: rows, messages, stacks, the log."""
        now = time.time()
        with db.reading(self.settings.database) as session:
            rows = session.exec(select(Job).where(col(Job.state).in_(ACTIVE))).all()
        told = [
            f"job {job.id} {job.state} attempt {job.attempt} losses {job.losses} "
            f"token {job.lease_token} worker {job.worker} cancel {job.cancel} "
            f"lease {(job.lease_until or now) - now:+.1f} s "
            f"notified {(job.notified_at or now) - now:+.1f} s"
            for job in rows
        ]
        try:
            with redis.Redis.from_url(self.settings.redis, socket_timeout=5) as client:
                told.append(f"messages: {client.llen(QUEUE)}, clients:")
                told += [f"  {one['age']} s old, last {one['cmd']}" for one in client.client_list()]
        except redis.RedisError as error:
            told.append(f"Redis does not answer: {error}")
        living = [worker for worker in self.workers if alive(worker.pid)]
        for worker in living:
            for process in [worker, *worker.children()]:
                told.append(f"{process.pid} (of {process.ppid()}) is {process.status()}")
                process.send_signal(signal.SIGUSR2)  # its stacks go into the log
        time.sleep(1)
        return "\n".join([*told, "the end of the log:", self.log.read_text()[-40_000:]])

    def lines(self, word: str, job_id: int | None = None) -> list[list[str]]:
        if not self.trace.exists():
            return []
        found = [line.split() for line in self.trace.read_text().splitlines()]
        return [line for line in found if line[0] == word and job_id in (None, int(line[1]))]

    def running(self, job_id: int, count: int = 1) -> tuple[int, int]:
        """Wait for the start of a job; the process ids of its slot and its converter."""
        wait(lambda: len(self.lines("start", job_id)) >= count, what=f"start of {job_id}")
        line = self.lines("start", job_id)[-1]
        return int(line[3]), int(line[4])

    def suspend(self, *processes: psutil.Process) -> None:
        """Let processes stand still, but not in a transaction: SQLite would keep all others out."""
        while True:
            for process in processes:
                process.suspend()
            with contextlib.closing(
                sqlite3.connect(self.settings.data / "hub.sqlite", timeout=1)
            ) as probe:
                try:
                    probe.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    for process in processes:
                        process.resume()
                else:
                    return

    def check(self) -> None:
        """What must be true when all is over, whatever happened."""
        with db.reading(self.settings.database) as session:
            rows = list(session.exec(select(Job)))
            assert {job.state for job in rows} <= {"done", "failed", "cancelled"}
            made = list(session.exec(select(Artefact)))
            keys = [row.key for row in made]
            assert len(keys) == len(set(keys))
            for job in rows:
                if job.state == "done":
                    assert set(job.request["keys"].values()) <= set(keys)
            if made:
                repo = find(session, made[0].repo)
                store = BlobStore(self.settings.blobs)
                stored = {
                    file.path: file for file in files(session, resolve(session, repo, "main"))
                }
                for row in made:
                    for file in row.files:
                        assert stored[file["path"]].sha256 == file["sha256"]
                for name, entry in stored.items():
                    assert store.path(entry.sha256).stat().st_size == entry.size, name
                with store.open(stored["README.md"].sha256) as readme:
                    card = readme.read().decode()
                assert all(row.variant in card for row in made)
        wait(lambda: not list(self.settings.scratch.iterdir()), "scratch is left")


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def stub_format() -> artefacts.Format:
    return artefacts.Format(folder=Path("/nowhere"), name="stub", title="Stub", version="1")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def make_bench(settings: Settings, server: RedisServer, folder: Path, **more: object) -> Bench:
    values = settings.model_dump() | FAST | {"redis_url": server.url} | more
    return Bench(Settings(**values), folder)
