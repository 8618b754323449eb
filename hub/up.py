"""The embedded hub: Redis, the web server and a worker under one supervisor, in one folder."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from hub import db, redis_server, security
from hub.config import ROOT, Settings
from hub.errors import Conflict, HubError, Unavailable

STOP_SECONDS = 8.0
START_SECONDS = 60.0
_SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes with the closing NUL
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass
class Child:
    """A process that the supervisor keeps running."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the process in a session of its own; it ends with the supervisor, come what may."""
        self.started.append(time.monotonic())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def ended(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.process.poll() if self.process else None

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to all of its group."""
        if self.process is None or (self.process.poll() is not None and not group):
            return
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)

    def flapping(self) -> bool:
        """Whether it was started five times within a minute."""
        return len(self.started) >= 5 and self.started[-1] - self.started[-5] < 60


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def prepare(settings: Settings) -> IO[str]:
    """Make the data folder, lock it, test the port, migrate; the lock holds while it is open."""
    security.check_settings(settings)
    lock_path = settings.data / "hub.lock"
    try:
        for folder in (settings.data, settings.logs, settings.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("a+")
    except OSError as error:
        raise Conflict(
            "data_not_writable",
            f"The data folder {settings.data} cannot be written: {error.strerror}.",
            "Name another folder in HUB_DATA, or give this user the right to write there.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise Conflict(
            "data_in_use",
            f"Another hub (process {owner or 'unknown'}) uses the data folder {settings.data}.",
            "Stop that one, or name another folder in HUB_DATA.",
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    _check_port(settings)
    db.migrate(settings.database)
    return lock


def _check_port(settings: Settings) -> None:
    """Refuse at once when the address cannot be bound."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Conflict(
                "port_in_use",
                f"The port {settings.port} on {settings.host} cannot be used: {error.strerror}.",
                "Stop what uses it, or name another in HUB_PORT.",
            ) from error


def _redis(settings: Settings, environment: dict[str, str]) -> Child:
    """A private Redis on a socket: it carries only messages that the database can send again."""
    address = settings.data / "redis.sock"
    if len(os.fsencode(address)) > _SOCKET_PATH_LIMIT:
        address = Path(tempfile.mkdtemp(prefix="slmhub-")) / "redis.sock"
    environment["HUB_REDIS_URL"] = f"unix://{address}"
    argv = [redis_server.program(settings.data), "--port", "0", "--unixsocket", str(address)]
    argv += ["--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
    argv += ["--dir", str(address.parent), "--daemonize", "no"]
    return Child("redis", argv, environment, settings.logs / "redis.log")


def children(settings: Settings) -> list[Child]:
    """What the embedded hub consists of, in the order of starting."""
    # The children have a working folder of their own: no path may depend on this process's.
    plugins = ",".join(map(str, settings.plugins))
    environment = dict(os.environ, HUB_DATA=str(settings.data), HUB_PLUGINS=plugins)
    made = [] if settings.redis_url else [_redis(settings, environment)]
    web = [sys.executable, "-m", "hub.cli", "serve"]
    worker = [sys.executable, "-m", "workers"]
    return [
        *made,
        Child("web", web, environment, settings.logs / "web.log"),
        Child("worker", worker, environment, settings.logs / "worker.log"),
    ]


def wait_until_ready(settings: Settings, family: list[Child]) -> None:
    """Wait until the web server answers; say which log to read when a child does not start."""
    deadline = time.monotonic() + START_SECONDS
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/healthz"
    while time.monotonic() < deadline:
        for child in family:
            if (code := child.ended()) is not None:
                raise _did_not_start(child, f"ended with code {code}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address, timeout=2, trust_env=False).is_success:
                return
        time.sleep(0.05)
    raise _did_not_start(family[-2], f"did not answer within {START_SECONDS:.0f} s")


def _did_not_start(child: Child, how: str) -> HubError:
    tail = child.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it left no log"]
    return Unavailable(
        "did_not_start",
        f"The {child.name} process {how}: {tail[0]}",
        f"Its log is {child.log}.",
    )


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Callable[[], None]]:
    """Run the embedded hub; the block gets a function that keeps it running until a signal."""
    lock = prepare(settings)
    family = children(settings)

    def on_signal(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell without job control starts what runs in its background with it ignored.
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        for child in family:
            child.start()
        wait_until_ready(settings, family)
        yield lambda: _keep(family)
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        stop(family)
        lock.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _keep(family: list[Child]) -> None:
    """Start again whatever ends, until one ends again and again."""
    while True:
        for child in family:
            if child.ended() is not None:
                child.signal(signal.SIGKILL, group=True)
                if child.flapping():
                    raise _did_not_start(child, "keeps ending")
                print(f"The {child.name} process ended and is started again.", file=sys.stderr)
                child.start()
        time.sleep(0.5)


def stop(family: list[Child]) -> None:
    """End every child: TERM in the reverse order, KILL for the whole group at the end."""
    deadline = time.monotonic() + STOP_SECONDS
    for child in reversed(family):
        # Redis goes last: the worker still gives its jobs back.
        if child.name == "redis":
            _wait([one for one in family if one is not child], deadline)
        child.signal(signal.SIGTERM)
    _wait(family, deadline)
    for child in family:
        if child.process is not None and child.ended() is None:
            print(
                f"The {child.name} process did not end within {STOP_SECONDS:.0f} s and is killed.",
                file=sys.stderr,
            )
        child.signal(signal.SIGKILL, group=True)
        if child.process is not None:
            child.process.wait()
        if child.name == "redis":
            address = Path(child.environment["HUB_REDIS_URL"].removeprefix("unix://"))
            address.unlink(missing_ok=True)
            if address.parent.name.startswith("slmhub-"):
                address.parent.rmdir()


def _wait(family: list[Child], deadline: float) -> None:
    while time.monotonic() < deadline and any(child.ended() is None for child in family):
        time.sleep(0.05)
