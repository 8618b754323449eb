"""A real Redis for tests, on a socket of its own, which a test may stop, pause and empty."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from hub.redis_server import program

PROGRAM = Path(tempfile.gettempdir()) / "slmhub-redis-program"
"""Where a server is unpacked once, on a machine that has none."""
PATIENCE = 120.0
"""Seconds after which a server that starts or answers late is given up: the machine may be busy."""


class RedisServer:
    """A server without a file: what it holds is gone when it stops."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slmhub-redis-"))
        self.url = f"unix://{self.folder}/redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        socket = self.folder / "redis.sock"
        command = [program(PROGRAM), "--port", "0", "--unixsocket", str(socket), "--save", ""]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                self.ask("PING")
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.01)
            else:
                return
        raise TimeoutError(f"Redis did not start within {PATIENCE:g} s")

    def ask(self, *command: str) -> object:
        patient = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
        with redis.Redis.from_url(self.url, **patient) as client:
            return client.execute_command(*command)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            (self.folder / "redis.sock").unlink(missing_ok=True)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running server of the test's own."""
    server = RedisServer()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.folder)
