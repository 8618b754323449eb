"""Download of a large file from the hub against nginx serving the same file, on loopback.

    python -m bench.download [--gigabytes 2] [--runs 5] [--clients 50]

Three servers have the file: nginx alone, the hub under gunicorn, and the hub behind nginx with
X-Accel-Redirect. Each run reads the whole file, then its parts in ranges of 64 MiB, and takes turns
among the servers. Printed are the best rates, their ratios to nginx, the processor time of the hub
for a gigabyte, and how much its memory grew; then the same with many slow clients at once, with the
time a page takes meanwhile. The file is mostly a hole: it is read from memory, not from the disk.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from hub import db, repos
from hub.blobs import BlobStore
from hub.config import ROOT, Settings

PART = 64 * 1024**2
PATH = "/bench/model/resolve/main/model.bin"
DIGEST = "ab" * 32
"""Not the file's: it is only served here, and hashing it would take longer than the benchmark."""


def prepare(folder: Path, size: int) -> Settings:
    """A hub with one repo of one file, a hole of `size` bytes."""
    settings = Settings(data=folder / "data")
    settings.data.mkdir()
    db.migrate(settings.database)
    blob = BlobStore(settings.blobs).path(DIGEST)
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as file:
        file.truncate(size)
    with db.writing(settings.database) as session:
        entry = repos.Entry("model.bin", DIGEST, size, "0" * 40)
        repos.add_commit(
            session, name="bench/model", kind="mirrored", sha="1" * 40, entries=[entry]
        )
    return settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[psutil.Process]:
    """A server until the block ends."""
    process = psutil.Popen(
        command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=30)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def gunicorn(settings: Settings, port: int, **environment: str) -> ExitStack:
    stack = ExitStack()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:hub.gunicorn"]
    environment |= {"HUB_DATA": str(settings.data), "HUB_PORT": str(port)}
    stack.enter_context(running([*command, "hub.app:create_app()"], port, **environment))
    return stack


def nginx_configuration(folder: Path, settings: Settings, port: int, upstream: int) -> list[str]:
    """The project's own nginx.conf, with one location more that serves the file without the hub."""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    static = f"location = /static.bin {{ alias {BlobStore(settings.blobs).path(DIGEST)}; }}"
    for old, new in {
        "include mime.types;": "",
        "server web:8080": f"server 127.0.0.1:{upstream}",
        "listen 8080;": f"listen 127.0.0.1:{port};\n{static}",
        "alias /data/blobs/": f"alias {settings.blobs}/",
        "access_log /dev/stdout": "access_log off",
        "/dev/stderr": "stderr",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    options = f"daemon off; pid {folder / 'nginx.pid'};" + (
        " user root;" if os.geteuid() == 0 else ""
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", options]


def fetch(url: str, start: int | None = None, end: int = 0, pause: float = 0.0) -> int:
    """Read an answer and forget it; the bytes of its body. With a pause, slowly."""
    parts = urlsplit(url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=60) as client:
        lines = [f"GET {parts.path} HTTP/1.1", "Host: localhost", "Connection: close"]
        if start is not None:
            lines.append(f"Range: bytes={start}-{end - 1}")
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        buffer = bytearray(1024**2)
        head = bytearray()
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        status, body = bytes(head).split(b"\r\n", 1)[0], head.index(b"\r\n\r\n") + 4
        assert status.split()[1] == (b"200" if start is None else b"206"), (url, status)
        received = len(head) - body
        while count := client.recv_into(buffer, 65536 if pause else 0):
            received += count
            if pause:
                time.sleep(pause)
        return received


def whole(url: str, size: int) -> float:
    """Bytes a second of one download of the whole file."""
    began = time.perf_counter()
    assert fetch(url) == size
    return size / (time.perf_counter() - began)


def ranged(url: str, size: int) -> float:
    """Bytes a second of the file in parts, one after the other."""
    began = time.perf_counter()
    for start in range(0, size, PART):
        end = min(size, start + PART)
        assert fetch(url, start, end) == end - start
    return size / (time.perf_counter() - began)


def slow_clients(address: str, number: int, size: int) -> tuple[float, float]:
    """Seconds that a page takes, median and 95th of 100, while many read at about 1 MB/s."""
    url = f"{address}{PATH}"
    threads = [
        threading.Thread(target=fetch, args=(url, 0, min(size, 16 * 1024**2), 0.06))
        for _ in range(number)
    ]
    for thread in threads:
        thread.start()
    times = []
    with httpx.Client(trust_env=False, timeout=30) as client:
        for _ in range(100):
            began = time.perf_counter()
            client.get(f"{address}/api/v1/models").raise_for_status()
            times.append(time.perf_counter() - began)
    for thread in threads:
        thread.join()
    return statistics.median(times), sorted(times)[94]


def worker(port: int) -> psutil.Process:
    """The process of gunicorn that answers on a port."""
    for process in psutil.Process().children(recursive=True):
        if f"HUB_PORT={port}" in " ".join(f"{k}={v}" for k, v in process.environ().items()):
            children = process.children()
            if children:
                return children[0]
    raise SystemExit("gunicorn has no worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=50)
    options = parser.parse_args()
    size = int(options.gigabytes * 10**9)
    alone, upstream, front = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        settings = prepare(folder, size)
        stack.enter_context(gunicorn(settings, alone))
        stack.enter_context(gunicorn(settings, upstream, HUB_X_ACCEL="/_blobs/"))
        command = nginx_configuration(folder, settings, front, upstream)
        stack.enter_context(running(command, front))
        urls = {
            "nginx": f"http://127.0.0.1:{front}/static.bin",
            "hub": f"http://127.0.0.1:{alone}{PATH}",
            "hub behind nginx": f"http://127.0.0.1:{front}{PATH}",
        }
        hub = worker(alone)
        for url in urls.values():
            whole(url, size)  # the file is in memory from here on
        memory, seconds, sent = hub.memory_info().rss, sum(hub.cpu_times()[:2]), 0
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.runs):
            for way, measure in (("whole", whole), ("ranged", ranged)):
                for server, url in urls.items():
                    rates.setdefault((way, server), []).append(measure(url, size))
                    sent += size if server == "hub" else 0
        seconds = sum(hub.cpu_times()[:2]) - seconds
        for (way, server), found in rates.items():
            ratio = max(found) / max(rates[way, "nginx"])
            print(f"{way:7} {server:17} {max(found) / 1e9:6.2f} GB/s  {ratio:5.2f} x nginx")
        print(f"processor time of the hub: {seconds / (sent / 1e9):.3f} s for a gigabyte")
        print(f"memory of the hub: grew {(hub.memory_info().rss - memory) / 1e6:.1f} MB")
        memory = hub.memory_info().rss
        median, late = slow_clients(f"http://127.0.0.1:{alone}", options.clients, size)
        print(
            f"{options.clients} slow clients: memory grew "
            f"{(hub.memory_info().rss - memory) / 1e6:.1f} MB, "
            f"a list of models took {median * 1e3:.0f} ms, at p95 {late * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
