"""An embedded hub of its own for a benchmark, on a free port of loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from hub.client import Client
from hub.config import Settings


@contextmanager
def hub(data: Path, **settings: str) -> Iterator[Client]:
    """Run `slmhub up` with its data in a folder until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"HUB_DATA": str(data), "HUB_PORT": str(port)} | settings
    process = subprocess.Popen([sys.executable, "-m", "hub.cli", "up"], env=environment)
    try:
        for _ in range(300):
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        with Client(Settings(data=data, port=port)) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
