"""How a plugin's process is started: request.json, the sandbox's plan, and a short environment.

The hub asks about models this way, and the workers convert this way. Nothing of a plugin is
imported: the launcher (workers/sandbox.py) and the shim (workers/shim.py) are started by their
paths.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hub.config import ROOT, Settings
from hub.errors import Unavailable
from hub.formats import Format

LAUNCHER = ROOT / "workers" / "sandbox.py"
SHIM = ROOT / "workers" / "shim.py"
ANSWER = 1 << 20
"""Bytes that a plugin may say on each stream when it is asked something."""
APPRAISE_MEMORY = 2 << 30
"""Bytes that one process may use that is asked about a model: enough for an import of torch."""


@dataclass
class Request:
    """What is asked of a plugin: request.json, as documented in workers/shim.py."""

    action: str
    name: str = ""
    variants: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    source_name: str = ""
    source: Path | None = None
    output: Path | None = None
    scratch: Path | None = None
    earlier: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    smoke: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A command line with its whole environment, and the isolation it will run in."""

    command: list[str]
    env: dict[str, str]
    level: str


@dataclass(frozen=True)
class Answer:
    """What a process said until it ended, and its exit code."""

    code: int
    output: bytes
    errors: bytes


class SaidTooMuch(Exception):
    """A process that was asked something said more than ANSWER bytes on a stream."""


def self_test() -> str | None:
    """Why the sandbox cannot be had on this machine, or None."""
    try:
        ended = subprocess.run(
            [sys.executable, "-I", str(LAUNCHER), "--self-test"],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "the sandbox did not start within 30 s"
    if ended.returncode == 0:
        return None
    last = last_event(ended.stdout)
    return str(last.get("message") or f"the sandbox ended with code {ended.returncode}")


_proved = False


def level(settings: Settings) -> str:
    """`strict` where the sandbox can be had; else `weak` if the operator said so, else an error."""
    global _proved  # a self-test that passed once is not repeated; one that failed is
    if not _proved:
        reason = self_test()
        if reason is not None:
            if settings.sandbox == "weak":
                return "weak"
            raise Unavailable(
                "sandbox_unavailable",
                f"Conversions need a sandbox, and this machine does not give one: {reason}.",
                "Allow user namespaces for the hub, or set HUB_SANDBOX=weak to convert without"
                " isolation (unsafe).",
            )
        _proved = True
    return "strict"


def threads(settings: Settings) -> int:
    """The threads a conversion may use."""
    return settings.threads or len(os.sched_getaffinity(0))


def memory(settings: Settings) -> int:
    """The bytes of memory a conversion may use."""
    return settings.memory_limit or int(psutil.virtual_memory().total * 0.85)


def plan(
    settings: Settings, fmt: Format, environment: Path, request: Request, folder: Path
) -> Plan:
    """Write request.json and the launcher's plan into `folder`, and say what to start."""
    isolation = level(settings)
    strict = isolation == "strict"
    environment = environment.resolve()
    document = folder / "request.json"
    read = {SHIM: "/shim.py", fmt.folder: "/plugin", document: "/request.json"}
    write: dict[Path, str] = {}
    for path, name in ((request.source, "/source"), (request.earlier, "/earlier")):
        if path is not None:
            read[path] = name
    for path, name in ((request.output, "/output"), (request.scratch, "/scratch")):
        if path is not None:
            write[path] = name
    python = environment / "bin" / "python"
    allowed = memory(settings)
    if request.action == "appraise":
        allowed = min(allowed, APPRAISE_MEMORY)
    places = {**read, **write}

    def inside(path: Path | None) -> str | None:
        if path is None:
            return None
        return places[path] if strict else str(path.resolve())

    content = asdict(request) | {
        "api": fmt.api,
        "plugin": inside(fmt.folder),
        "source": inside(request.source),
        "output": inside(request.output),
        "scratch": inside(request.scratch),
        "earlier": inside(request.earlier),
        "threads": threads(settings),
        "memory": allowed,
    }
    document.write_text(json.dumps(content), "utf-8")
    document.chmod(0o644)
    mounts = {str(path.resolve()): name for path, name in read.items()}
    if python.exists():
        for prefix in (environment, Path(sys.base_prefix), python.resolve().parent.parent):
            mounts[str(prefix.resolve())] = str(prefix)
    if fmt.command is None:
        command = [str(python), "-I", "-B", inside(SHIM) or "", inside(document) or ""]
        where = inside(request.scratch) or "/"
    else:
        command = [*fmt.command, inside(document) or ""]
        where = inside(fmt.folder) or "/"
    sandbox = {
        "level": isolation,
        "parent": os.getpid(),
        "read": mounts,
        "write": {str(path.resolve()): name for path, name in write.items()},
        "command": command,
        "folder": where,
        "file_size": settings.output_limit,
        "processes": settings.process_limit,
        "tmp": min(1 << 30, allowed // 4),
    }
    if request.action != "convert":  # a conversion is watched instead, all its processes together
        sandbox["data"] = allowed
    launcher = folder / "sandbox.json"
    launcher.write_text(json.dumps(sandbox), "utf-8")
    return Plan(
        [sys.executable, "-I", str(LAUNCHER), str(launcher)],
        _environment(settings, python.parent, inside(request.scratch) or "/tmp"),  # noqa: S108
        isolation,
    )


def ask(plan: Plan, seconds: float) -> Answer:
    """Start a plan and wait for its end, as for a short answer; nothing of it is left behind.

    TimeoutError when it did not end within the time, SaidTooMuch above ANSWER bytes.
    """
    with psutil.Popen(
        plan.command,
        env=plan.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + seconds
        try:
            output, errors = _read(process, deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except psutil.TimeoutExpired:
            end(process, grace=0)
            raise TimeoutError from None
        except BaseException:
            end(process, grace=0)
            raise
    return Answer(int(code), output, errors)


def _read(process: psutil.Popen, deadline: float) -> tuple[bytes, bytes]:
    """What a process says on both streams until it closes them."""
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in said:
            selector.register(pipe, selectors.EVENT_READ, said[pipe])
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.extend(data)
                if len(key.data) > ANSWER:
                    raise SaidTooMuch
    return bytes(said[process.stdout]), bytes(said[process.stderr])


def tree(process: psutil.Popen) -> list[psutil.Process]:
    """The launcher and all that descends from it."""
    return [process, *process.children(recursive=True)]


def end(process: psutil.Popen, grace: float) -> None:
    """End a launched process with all that descends from it: TERM, `grace` seconds, KILL."""
    try:
        descendants = tree(process)[1:]
        if grace:
            process.terminate()
            try:
                process.wait(grace)
            except psutil.TimeoutExpired:
                descendants = tree(process)[1:]
        # Process 1 of the sandbox takes its whole namespace with it; without one, each is ended.
        for one in descendants:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        try:
            process.wait(2)  # the launcher ends orphans that were not yet seen
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
    except psutil.NoSuchProcess:
        return
    psutil.wait_procs(descendants, timeout=5)


def last_event(output: bytes) -> Mapping[str, Any]:
    """The last event of a short answer; empty if there is none."""
    lines = output.splitlines()
    if not lines:
        return {}
    try:
        event = json.loads(lines[-1])
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _environment(settings: Settings, binaries: Path, scratch: str) -> dict[str, str]:
    """The variables a plugin sees: an allow-list, so that no token or address can leak."""
    count = str(threads(settings))
    counted = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "RAYON", "VECLIB_MAXIMUM")
    return {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "HOME": scratch,
        # Large temporary files belong on the disk, where the output limit counts them.
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONHASHSEED": "0",
        **{f"{name}_NUM_THREADS": count for name in counted},
    }
