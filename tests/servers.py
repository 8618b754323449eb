"""The hub behind its real servers: gunicorn alone, and nginx before it, as processes of a test."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
START = 120.0
"""Seconds that a server may take to answer, or to end, on a busy machine."""


def _ports() -> Iterator[int]:
    """Ports below those that the kernel gives to outgoing connections, each once, in any order."""
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    except OSError:
        text = "32768"
    end = int(text.split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    found = list(range(max(1024, end - 10_000), end))[worker % count :: count]
    random.SystemRandom().shuffle(found)  # hypothesis seeds the common one
    yield from found
    while True:
        yield 0  # all are taken, or outgoing connections have the whole range: any that is free


_PORTS = _ports()


def free_port() -> int:
    """A port that nobody listens on, and that stays free until a server of this test binds it.

    That may be seconds later: one that the kernel chooses could be an outgoing connection's by
    then, and other processes of the same tests have others.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))  # the servers have different addresses
            except OSError:
                if port:
                    continue
                raise
            return int(probe.getsockname()[1])
    raise AssertionError("there is always another port")


@contextmanager
def gunicorn(data: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The hub of a data folder under gunicorn: its address and its process."""
    port = free_port()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HUB_")},
        "HUB_DATA": str(data),
        "HUB_PORT": str(port),
        **environment,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:hub.gunicorn"]
    with _running([*command, "hub.app:create_app()"], f"http://127.0.0.1:{port}", env) as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def nginx(folder: Path, blobs: Path, upstream: str) -> Iterator[str]:
    """nginx with the project's own configuration before a hub: its address."""
    port = free_port()
    mime = next(Path(p) for p in ("/etc/nginx/mime.types",) if Path(p).exists())
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    temporary = "".join(
        f"{name}_temp_path {folder / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    for old, new in {
        "include mime.types;": f"include {mime};\n{temporary}",
        "server web:8080": f"server {upstream.removeprefix('http://')}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/data/blobs/": f"{blobs}/",
        "worker_processes auto;": "worker_processes 1;",
        "/dev/stdout": str(folder / "access.log"),
        "/dev/stderr": "stderr",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
    options = f"daemon off; pid {folder / 'nginx.pid'};"
    if os.geteuid() == 0:
        options += " user root;"  # the folders of a test are its user's alone
    command = ["nginx", "-p", str(folder), "-c", str(configuration), "-g", options]
    with _running([*command, "-e", "stderr"], f"http://127.0.0.1:{port}", dict(os.environ)):
        yield f"http://127.0.0.1:{port}"


def has_nginx() -> bool:
    """Whether this machine has nginx."""
    return shutil.which("nginx") is not None


@contextmanager
def _running(
    command: list[str], address: str, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=env, cwd=ROOT)
    try:
        _wait(process, address)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        try:
            if httpx.get(f"{address}/healthz", trust_env=False, timeout=START).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"no answer from {address} within {START:g} s")
