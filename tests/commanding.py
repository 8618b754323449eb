"""Commands run inside the test's own process, and a hub on loopback for those that talk to one."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from hub.app import create_app
from hub.cli import main
from hub.config import Settings


@dataclass
class Outcome:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed on success."""
        return json.loads(self.out)

    @property
    def failure(self) -> dict[str, str]:
        """What was printed on failure, on the last line of standard error."""
        found: dict[str, str] = json.loads(self.err.splitlines()[-1])
        assert set(found) == {"kind", "message", "hint"}
        return found


class Slmhub:
    """Runs `slmhub` with arguments and settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def set(self, **values: str) -> None:
        """Set variables of the environment; an empty value is none."""
        for name, value in values.items():
            self.monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["slmhub", *arguments])
        self.capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return Outcome(code, out, err)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The real application of a hub on a port of its own: its address."""
    server = make_server("127.0.0.1", 0, create_app(settings), _Server, _Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
