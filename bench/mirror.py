"""Mirroring against `hf download`, from the same upstream on loopback, in pairs.

    python -m bench.mirror [--gigabytes 1] [--pairs 5]
    python -m bench.mirror --kills 20 [--gigabytes 1]

The upstream is a process of its own that answers ranges by sendfile. Both sides start cold: a new
process, an empty folder. The hub checks SHA-256 and waits for the disk (fsync); `hf download`
does neither. Printed are seconds, ratios and the peak memory of each process.

With `--kills` the hub's process is killed so often on its way, from an upstream that sends 20 MB a
second. Printed is the share of the bytes that were fetched twice.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from hub import db, mirror
from hub.config import Settings

NAME = "bench/model"
SHA = "0123456789abcdef0123456789abcdef01234567"
RATE = 20_000_000
"""Bytes a second of a slow upstream."""
PIECE = 1 << 16


def make(folder: Path, size: int) -> None:
    """A repo with one safetensors file of about `size` random bytes."""
    rows = size // 256
    tensor = {"dtype": "F32", "shape": [rows, 64], "data_offsets": [0, rows * 256]}
    header = json.dumps({"model.embed_tokens.weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        left = rows * 256
        while left:
            left -= file.write(os.urandom(min(left, 1 << 20)))
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("# Random numbers\n")


class Upstream(ThreadingHTTPServer):
    """Serves one folder as a repo of a Hugging Face hub."""

    daemon_threads = True

    def __init__(self, folder: Path, slow: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.slow = slow
        self.sent = 0
        self.turn = threading.Lock()
        self.files = {path.name: path for path in folder.iterdir()}
        self.items = [self._item(path) for path in self.files.values()]

    def handle_error(self, request: object, client_address: object) -> None:
        """Be silent about clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @staticmethod
    def _item(path: Path) -> dict[str, object]:
        size = path.stat().st_size
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                more = {"oid": "0" * 40, "lfs": {"oid": sha256, "size": size, "pointerSize": 134}}
            else:
                data = b"blob %d\0%s" % (size, file.read())
                more = {"oid": hashlib.sha1(data, usedforsecurity=False).hexdigest()}
        return {"type": "file", "path": path.name, "size": size, **more}


class Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub and the hub ask for."""

    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/sent":
            self._json(self.server.sent)
        elif "/tree/" in path:
            self._json(self.server.items)
        elif path.startswith("/api/"):
            names = [{"rfilename": name} for name in self.server.files]
            self._json({"id": NAME, "sha": SHA, "siblings": names})
        else:
            self._file(path.rpartition("/")[2])

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Silence: it would be part of what is measured."""

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str) -> None:
        path = self.server.files[name]
        size = path.stat().st_size
        start, end = 0, size
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if asked:
            first, _, last = asked.partition("-")
            start, end = int(first), int(last) + 1 if last else size
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hashlib.sha256(name.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as file:
                while start < end:
                    count = min(end - start, PIECE) if self.server.slow else end - start
                    sent = os.sendfile(self.connection.fileno(), file.fileno(), start, count)
                    start += sent
                    if self.server.slow:
                        with self.server.turn:
                            self.server.sent += sent
                            time.sleep(sent / RATE)


def take(data: Path, tell: int) -> None:
    """The hub's side, in a process of its own; a line on stdout when `tell` bytes are there."""
    settings = Settings(data=data)
    told = False

    def report(done: int, *_: object) -> None:
        nonlocal told
        if done >= tell and not told:
            told = True
            print("there", flush=True)

    mirror.mirror(settings, mirror.plan(settings, NAME), report=report)


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a command."""
    began = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[-1]} ended with {process.returncode}")
    return time.monotonic() - began, used.ru_maxrss * 1024


@contextmanager
def upstream(size: int, *more: str) -> Iterator[tuple[Path, str]]:
    """An upstream with a model of `size` bytes: a folder for what is made of it, its address."""
    with tempfile.TemporaryDirectory(prefix="bench-mirror-") as name:
        root = Path(name)
        (root / "repo").mkdir()
        make(root / "repo", size)
        server = subprocess.Popen(
            [sys.executable, "-m", "bench.mirror", "--serve", str(root / "repo"), *more],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout
        try:
            yield root, server.stdout.readline().strip()
        finally:
            server.kill()
            server.wait()


def compare(size: int, pairs: int) -> None:
    """Run both sides in turns and print what they took."""
    hf = shutil.which("hf", path=str(Path(sys.executable).parent)) or "hf"
    ratios, peaks = [], []
    with upstream(size) as (root, address):
        endpoint = {"HF_ENDPOINT": address}
        for number in range(pairs):
            data, cache = root / f"data{number}", root / f"cache{number}"
            data.mkdir()
            db.migrate(Settings(data=data).database)
            ours, peak = measure(
                [sys.executable, "-m", "bench.mirror", "--take", str(data)], endpoint
            )
            quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(cache)}
            theirs, other = measure([hf, "download", NAME], endpoint | quiet)
            shutil.rmtree(data)
            shutil.rmtree(cache)
            ratios.append(ours / theirs)
            peaks.append(peak)
            print(
                f"hub {ours:6.2f} s {peak / 1e6:5.0f} MB   "
                f"hf {theirs:6.2f} s {other / 1e6:5.0f} MB   ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(
        f"median ratio {statistics.median(ratios):.2f} (below 1: the hub is faster), "
        f"peak memory of the hub {max(peaks) / 1e6:.0f} MB"
    )


def kill(size: int, kills: int) -> None:
    """Kill the hub's process again and again, let the last one finish; print what that cost."""
    chance = random.Random(size)  # noqa: S311 - the same moments every time
    with upstream(size, "--slow") as (root, address):
        data = root / "data"
        data.mkdir()
        db.migrate(Settings(data=data).database)
        command = [sys.executable, "-m", "bench.mirror", "--take", str(data), "--tell"]
        environment = os.environ | {"HF_ENDPOINT": address}
        for number in range(kills):
            goal = str(size * number // kills + chance.randrange(size // kills // 2))
            with subprocess.Popen(
                [*command, goal], env=environment, stdout=subprocess.PIPE
            ) as process:
                assert process.stdout
                if process.stdout.readline() != b"there\n":
                    raise SystemExit("a mirror ended by itself")
                process.send_signal(signal.SIGKILL)
        subprocess.run([*command, "0"], env=environment, stdout=subprocess.DEVNULL, check=True)
        sent = httpx.get(f"{address}/sent", trust_env=False).json()
    print(f"{kills} kills: {sent / size - 1:.2%} was fetched twice, goal under 5 %")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description="Mirroring against hf download")
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--slow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--take", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tell", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        server = Upstream(arguments.serve, arguments.slow)
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
    elif arguments.take:
        take(arguments.take, arguments.tell)
    elif arguments.kills:
        kill(int(arguments.gigabytes * 1e9), arguments.kills)
    else:
        compare(int(arguments.gigabytes * 1e9), arguments.pairs)


if __name__ == "__main__":
    main()
