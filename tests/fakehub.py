"""A Hugging Face hub on this machine: a real HTTP server, and a second one that plays the CDN.

A test fills it with repos, tells it how to misbehave, and reads what was asked and sent:

    with FakeHub() as hub:
        sha = hub.add("org/model", tiny_model())
        hub.fault("*/resolve/*", status=503, times=2)
        ...
        assert hub.sent("model.safetensors") < 2 * size
"""

import contextlib
import hashlib
import io
import json
import secrets
import socket
import struct
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

Content = bytes | Path
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf", ".model", ".onnx", ".h5", ".msgpack")
BLOCK = 64 * 1024


def tiny_safetensors(tensors: Mapping[str, tuple[str, list[int]]], seed: int = 0) -> bytes:
    """A safetensors file of the given tensors {name: (dtype, shape)} with pseudo-random bytes."""
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = sizes[dtype]
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = b"".join(hashlib.sha256(b"%d %d" % (seed, i)).digest() for i in range(2048))
    data = (block * (offset // len(block) + 1))[:offset]
    return struct.pack("<Q", len(text)) + text + data


def tiny_model(rows: int = 64, **more: bytes) -> dict[str, Content]:
    """The files of a small Llama as a repo has them; `rows` scales the weights (256 bytes each)."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "vocab_size": rows,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    card = b"---\nlicense: apache-2.0\nlanguage: [en]\npipeline_tag: text-generation\n---\n# Tiny\n"
    files: dict[str, Content] = {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": card,
        "LICENSE": b"Apache License 2.0\n",
        "config.json": json.dumps(config).encode(),
        "generation_config.json": b'{"eos_token_id": 2}',
        "tokenizer.json": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}}}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "model.safetensors": tiny_safetensors({"model.embed_tokens.weight": ("F32", [rows, 64])}),
    }
    return files | more


@dataclass
class FakeFile:
    """A file of a repo: what the API says of it, and the bytes that are really sent."""

    content: Content
    size: int
    sha256: str
    git_sha1: str
    lfs: bool
    lie: bytes | None = None

    def read(self, start: int, end: int) -> bytes:
        """Bytes start..end of what is sent for this file, a block at most."""
        end = min(end, start + BLOCK)
        if self.lie is not None:
            return self.lie[start:end]
        if isinstance(self.content, bytes):
            return self.content[start:end]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    @property
    def length(self) -> int:
        """Bytes that are really sent, which a lie makes another figure than `size`."""
        return self.size if self.lie is None else len(self.lie)


def fake_file(path: str, content: Content) -> FakeFile:
    """A file with its true digests, large files known by SHA-256 as LFS has it."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            sha1.update(block)
    lfs = path.endswith(LFS_SUFFIXES) or size > 10_000_000
    if lfs:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
            sha256.hexdigest().encode(),
            size,
        )
        sha1 = hashlib.sha1(b"blob %d\0%s" % (len(pointer), pointer))
    return FakeFile(content, size, sha256.hexdigest(), sha1.hexdigest(), lfs)


@dataclass
class FakeRepo:
    """A repo: commits by id, branches by name, and who may read it."""

    commits: dict[str, dict[str, FakeFile]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    disabled: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class Fault:
    """What goes wrong with requests whose path matches, the next `times` times."""

    match: str
    times: int | None = 1
    skip: int = 0
    server: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    """Close the connection after this many bytes of the body."""
    stall: float = 0
    """Seconds of silence before the body, or after `cut` bytes if that is set too."""
    no_range: bool = False
    """Answer 200 and the whole file to a Range."""
    gzip: bool = False
    """Compress the body, without a length, whatever was accepted."""
    location: str | None = None
    """Redirect there."""


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    server: str
    method: str
    path: str
    query: str
    headers: dict[str, str]


class FakeHub:
    """The hub and its CDN. Faults, repos and switches may be changed while it runs."""

    def __init__(self, *, page: int = 1000, cdn: bool = True, rate: int | None = None) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.renamed: dict[str, tuple[str, int]] = {}
        self.tokens: set[str] = set()
        self.page = page
        self.cdn = cdn
        self.rate = rate
        self.anonymous_401 = True
        self.error_codes = True
        self.xet = True
        self.before_tree: Any = None
        self.asked: list[Asked] = []
        self._faults: list[Fault] = []
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()
        self._signature = secrets.token_hex(8)
        self._closing = threading.Event()
        self._hub = _Server(self, "hub")
        self._cdn = _Server(self, "cdn")

    def __enter__(self) -> "FakeHub":
        self._hub.start()
        self._cdn.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._hub.stop()
        self._cdn.stop()

    @property
    def url(self) -> str:
        """The endpoint to give to a client."""
        return f"http://127.0.0.1:{self._hub.server_address[1]}"

    @property
    def cdn_url(self) -> str:
        """Where large files are redirected to."""
        return f"http://127.0.0.1:{self._cdn.server_address[1]}"

    def add(
        self, name: str, files: Mapping[str, Content], *, revision: str = "main", **repo: Any
    ) -> str:
        """Commit these files, all that the commit has, to a branch; the commit id is returned."""
        made = {path: fake_file(path, content) for path, content in files.items()}
        known = self.repos.setdefault(name, FakeRepo())
        for key, value in repo.items():
            setattr(known, key, value)
        text = "".join(f"{path} {file.git_sha1}\n" for path, file in sorted(made.items()))
        sha = hashlib.sha1(f"{name} {len(known.commits)}\n{text}".encode()).hexdigest()
        known.commits[sha] = made
        known.refs[revision] = sha
        return sha

    def rename(self, old: str, new: str, status: int = 307) -> None:
        """Move a repo; the old name redirects."""
        self.repos[new] = self.repos.pop(old)
        self.renamed[old] = (new, status)

    def lie(self, name: str, path: str, content: bytes, revision: str = "main") -> None:
        """Send other bytes than the API promises."""
        repo = self.repos[name]
        repo.commits[repo.refs[revision]][path].lie = content

    def fault(self, match: str, **what: Any) -> Fault:
        """Make requests whose path (without query) matches go wrong: see Fault."""
        made = Fault(match, **what)
        with self._lock:
            self._faults.append(made)
        return made

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def sent(self, path: str | None = None) -> int:
        """Body bytes sent of one file, or of all files."""
        with self._lock:
            return sum(self._sent.values()) if path is None else self._sent.get(path, 0)

    def requests(self, match: str = "*", server: str | None = None) -> list[Asked]:
        """The requests whose path matches."""
        with self._lock:
            return [
                asked
                for asked in self.asked
                if fnmatch(asked.path, match) and server in (None, asked.server)
            ]

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self.asked.clear()
            self._sent.clear()

    def _note(self, asked: Asked) -> Fault | None:
        with self._lock:
            self.asked.append(asked)
            for fault in self._faults:
                if fault.server not in (None, asked.server) or not fnmatch(asked.path, fault.match):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times is None or fault.times > 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def _count(self, path: str, size: int) -> None:
        with self._lock:
            self._sent[path] = self._sent.get(path, 0) + size


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, hub: FakeHub, role: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.role = role
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def start(self) -> None:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Silence."""

    def setup(self) -> None:
        super().setup()
        # Small buffers: what a killed client never read is not counted as sent.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * BLOCK)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.settimeout(120)

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        hub = self.server.hub
        fault = hub._note(Asked(self.server.role, self.command, path, split.query, headers))
        try:
            self._answer(path, split.query, headers, fault or Fault("", None))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_GET
    do_POST = do_GET

    def _answer(self, path: str, query: str, headers: dict[str, str], fault: Fault) -> None:
        if fault.location is not None:
            self._send(302, {"Location": fault.location, **fault.headers}, b"")
        elif fault.status is not None:
            self._send(fault.status, fault.headers, fault.body or b'{"error": "as wished"}')
        elif fault.body is not None:
            self._send(200, fault.headers, fault.body)
        elif self.server.role == "cdn":
            self._cdn(path, query, headers, fault)
        else:
            self._hub(path, query, headers, fault)

    def _cdn(self, path: str, query: str, headers: dict[str, str], fault: Fault) -> None:
        hub = self.server.hub
        if "authorization" in headers:
            self._send(400, {}, b"Only one auth mechanism allowed")
            return
        if query != f"sig={hub._signature}":
            self._send(403, {}, b"Request has expired")
            return
        for repo in hub.repos.values():
            for files in repo.commits.values():
                for name, file in files.items():
                    if path == f"/{file.sha256}/{name}":
                        self._file(name, file, headers, fault, {"ETag": f'"{file.sha256}"'})
                        return
        self._send(404, {}, b"NoSuchKey")

    def _hub(self, path: str, query: str, headers: dict[str, str], fault: Fault) -> None:
        hub = self.server.hub
        api = path.startswith("/api/models/")
        name = "/".join((path[len("/api/models/") :] if api else path[1:]).split("/")[:2])
        rest = path[path.index(name) + len(name) :].strip("/")
        if name in hub.renamed:
            new, status = hub.renamed[name]
            target = quote(path.replace(name, new, 1)) + (f"?{query}" if query else "")
            self._send(status, {"Location": target}, b"")
            return
        repo = hub.repos.get(name)
        token = headers.get("authorization", "").removeprefix("Bearer ") or None
        if token is not None and token not in hub.tokens:
            self._problem(401, "", "Invalid credentials in Authorization header")
            return
        hidden = repo is None or (repo.private and token not in repo.readers)
        if hidden or repo is None:
            anonymous = token is None and hub.anonymous_401
            message = "Invalid username or password." if anonymous else "Repository not found"
            self._problem(401 if anonymous else 404, "RepoNotFound", message)
            return
        if repo.disabled:
            self._problem(403, "", "Access to this resource is disabled.")
            return
        if api:
            self._api(name, repo, rest, parse_qs(query))
            return
        if repo.gated and token not in repo.readers:
            self._problem(401 if token is None else 403, "GatedRepo", f"Access to {name} is gated.")
            return
        kind, revision, file_path = (*rest.split("/", 2), "", "")[:3]
        sha = repo.refs.get(revision, revision)
        if kind != "resolve" or sha not in repo.commits:
            self._problem(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        file = repo.commits[sha].get(file_path)
        if file is None:
            self._problem(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
            return
        about = {"X-Repo-Commit": sha, "X-Linked-Size": str(file.size)}
        if not file.lfs or not hub.cdn:
            self._file(
                file_path,
                file,
                headers,
                fault,
                about | {"ETag": f'"{file.sha256 if file.lfs else file.git_sha1}"'},
            )
            return
        about["X-Linked-Etag"] = f'"{file.sha256}"'
        if hub.xet:
            about["X-Xet-Hash"] = file.sha256[::-1]
            about["Link"] = f'<{hub.url}/xet>; rel="xet-auth", <{hub.url}/x>; rel="xet-reconstruct"'
        address = f"{hub.cdn_url}/{file.sha256}/{quote(file_path)}?sig={hub._signature}"
        self._send(302, about | {"Location": address}, b"")

    def _api(self, name: str, repo: FakeRepo, rest: str, query: dict[str, list[str]]) -> None:
        hub = self.server.hub
        kind, _, tail = rest.partition("/")
        revision = tail.split("/")[0] if kind == "tree" else tail or "main"
        if kind == "tree" and hub.before_tree is not None:
            hub.before_tree()
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            self._problem(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repo.commits[sha]
        if kind == "tree":
            start = int(query.get("cursor", ["0"])[0])
            paths = sorted(files)[start : start + hub.page]
            more = {}
            if start + hub.page < len(files):
                here = f"{hub.url}/api/models/{name}/tree/{sha}?recursive=true"
                more["Link"] = f'<{here}&cursor={start + hub.page}>; rel="next"'
            self._json([self._item(path, files[path]) for path in paths], more)
            return
        self._json(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "gated": "manual" if repo.gated else False,
                "disabled": False,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )

    def _item(self, path: str, file: FakeFile) -> dict[str, Any]:
        item: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": file.size,
            "oid": file.git_sha1,
        }
        if file.lfs:
            item["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
            if self.server.hub.xet:
                item["xetHash"] = file.sha256[::-1]
        return item

    def _file(
        self, path: str, file: FakeFile, asked: dict[str, str], fault: Fault, about: dict[str, str]
    ) -> None:
        hub = self.server.hub
        start, end, status = 0, file.length, 200
        wanted = asked.get("range", "")
        if wanted.startswith("bytes=") and not fault.no_range and not fault.gzip:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first)
            end = min(int(last) + 1, file.length) if last else file.length
            if start >= file.length:
                self._send(416, {"Content-Range": f"bytes */{file.length}"}, b"")
                return
            status = 206
            about = about | {"Content-Range": f"bytes {start}-{end - 1}/{file.length}"}
        about = about | {"Accept-Ranges": "bytes", **fault.headers}
        if fault.gzip:
            squeeze = zlib.compressobj(1, wbits=31)
            data = b"".join(squeeze.compress(file.read(i, i + BLOCK)) for i in range(0, end, BLOCK))
            self._send(200, about | {"Content-Encoding": "gzip"}, data + squeeze.flush(), False)
            return
        self._head(status, {"Content-Length": str(end - start)} | about)
        if self.command == "HEAD":
            return
        began, at = time.monotonic(), start
        if fault.stall and fault.cut is None:
            hub._closing.wait(fault.stall)
        while at < end:
            if fault.cut is not None and at - start >= fault.cut:
                hub._closing.wait(fault.stall)
                self.close_connection = True
                return
            block = file.read(at, end if fault.cut is None else min(end, start + fault.cut))
            if not block:
                self.close_connection = True
                return
            # Counted first: a client that has it all may ask for the count before we go on.
            hub._count(path, len(block))
            self.connection.sendall(block)
            at += len(block)
            if hub.rate:
                early = (at - start) / hub.rate - (time.monotonic() - began)
                if early > 0:
                    hub._closing.wait(early)

    def _problem(
        self, status: int, code: str, message: str, more: dict[str, str] | None = None
    ) -> None:
        headers = {"X-Error-Message": message, **(more or {})}
        if code and self.server.hub.error_codes:
            headers["X-Error-Code"] = code
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="Authentication required"'
        self._send(status, headers, json.dumps({"error": message}).encode())

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._send(200, {"Content-Type": "application/json", **(headers or {})}, body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, status: int, headers: dict[str, str], body: bytes, length: bool = True) -> None:
        if length:
            self._head(status, {"Content-Length": str(len(body))} | headers)
        else:
            self.close_connection = True
            self._head(status, headers | {"Connection": "close"})
        if self.command != "HEAD":
            self.wfile.write(body)
