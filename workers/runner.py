"""Running a plugin: one process tree, its events, its limits, its end, and what it leaves.

The protocol is in shim.py, the walls are in sandbox.py, the limits in watch.py.
"""

import json
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from hub import formats, launch
from hub.config import ROOT, Settings
from hub.environments import in_use
from hub.errors import Conflict
from hub.formats import Format
from hub.launch import Request
from workers import harvest
from workers.watch import Cancelled, PluginError, Watch

__all__ = ["Cancelled", "Outcome", "PluginError", "Request", "run"]

LINE = 1 << 20  # bytes of one event
LOG = 32 << 20  # bytes of log that are kept; the tail for messages is kept apart
TAIL = 4000
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")
Progress = Callable[[float, str], None]
Artefact = Callable[[str, Path, dict[str, Any], float], None]


class Log(Protocol):
    """Where the converter's stderr goes."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a conversion went: its isolation, strict or weak, and its peaks in bytes."""

    isolation: str
    memory: int
    scratch: int


def run(
    settings: Settings,
    fmt: Format,
    request: Request,
    *,
    on_progress: Progress,
    on_artefact: Artefact,
    log: Log,
    cancelled: Callable[[], bool],
) -> Outcome:
    """Convert, and say how it went.

    `request.output` and `request.scratch` are empty folders on one file system, in a folder that is
    the job's own and that the caller removes; `request.earlier` may be left out. `on_progress` gets
    the progress of the whole job, 0 to 1, and a line. `on_artefact` gets a variant's name, the
    folder of its checked files (the caller's to move away; the converter cannot reach it), what
    `check` returned, and seconds; while it works the next variant is being made. `cancelled` is
    asked a few times a second, from another
    thread. Raises PluginError, harvest.BadOutput, Cancelled, Conflict (no environment) and
    Unavailable (no sandbox). When it returns or raises, nothing of the converter runs any more.
    """
    state = formats.state(settings, fmt)
    if not state.ready:
        raise Conflict(
            "plugin_not_ready",
            f"The plugin {fmt.name!r} is {state}.",
            f"Run `slmhub plugins install {fmt.name}`.",
        )
    if request.output is None or request.scratch is None:
        raise ValueError("a conversion needs folders for output and scratch")
    host = request.output.with_name(request.output.name + ".host")
    host.mkdir()
    if request.earlier is None:
        request = replace(request, earlier=host / "earlier")
        (host / "earlier").mkdir()
    environment = formats.environment(settings, fmt)
    with in_use(environment):
        plan = launch.plan(settings, fmt, environment, request, host)
        process = psutil.Popen(
            plan.command,
            env=plan.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        watch = Watch(settings, process, request, plan.level, lambda: not cancelled())
        conversation = _Conversation(settings, fmt, request, host, watch, on_progress, on_artefact)
        watch.start()
        try:
            _listen(process, conversation, log)
        finally:
            watch.stop()
            process.stdout.close()
            process.stderr.close()
        if watch.verdict is not None:
            raise watch.verdict
        conversation.conclude(process.returncode)
    return Outcome(plan.level, watch.peak, watch.scratch)


@dataclass
class _Conversation:
    """What the converter has said so far, and what follows from it."""

    settings: Settings
    fmt: Format
    request: Request
    host: Path
    watch: Watch
    on_progress: Progress
    on_artefact: Artefact
    tail: bytes = b""
    made: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    held: dict[str, Any] | None = None
    taken: int = 0

    def hear(self, line: bytes) -> None:
        """Act on one line; PluginError when it is not in the protocol."""
        try:
            event = json.loads(line, parse_constant=_no_number)
            json.dumps(event, ensure_ascii=False).encode()  # half a surrogate pair fits no database
            kind = event["event"]
            handler = {
                "progress": self._progress,
                "artefact": self._artefact,
                "done": self._ended,
                "error": self._ended,
            }[kind]
            if self.last:
                raise ValueError
            handler(event)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PluginError(
                "plugin_garbage",
                f"The converter sent a line that is not in the protocol: {line[:80]!r}",
                "This is a fault of the plugin: docs/protocol.md has the protocol.",
            ) from None

    def conclude(self, code: int) -> None:
        """Judge the whole run, its process having ended with `code`."""
        if self.last.get("event") == "error":
            raise self._told()
        if code != 0:
            raise self._crash(code)
        if not self.last:
            raise PluginError(
                "plugin_garbage",
                f"{self.fmt.title} ended without saying that it was done.{self._words()}",
                "This is a fault of the plugin: docs/protocol.md has the protocol.",
            )
        missing = [name for name in self.request.variants if name not in self.made]
        if missing:
            raise PluginError(
                "no_artefact",
                f"{self.fmt.title} said it was done, without having made {', '.join(missing)}.",
                "This is a fault of the plugin: tell its authors.",
            )
        if self.held is not None:
            self._publish(self.held, move=True)

    def _progress(self, event: dict[str, Any]) -> None:
        done = min(1.0, max(0.0, float(event["done"])))
        index = self.request.variants.index(event["variant"])
        # The last hundredths are for taking and publishing.
        whole = (index + 0.97 * done) / len(self.request.variants)
        message = self.scrub(str(event.get("message", "")))[:200]
        self.on_progress(whole, f"{event['variant']}: {message}" if message else event["variant"])

    def _artefact(self, event: dict[str, Any]) -> None:
        variant, check = event["variant"], event.get("check")
        if variant not in self.request.variants or variant in self.made:
            raise ValueError
        if not (check is None or isinstance(check, dict)):
            raise TypeError
        event["seconds"] = float(event.get("seconds") or 0)
        self.watch.weigh_scratch()
        self.made.append(variant)
        if len(self.made) == len(self.request.variants):
            self.held = event  # nothing more is made: after the end its files need no copy
        else:
            self._publish(event, move=False)

    def _ended(self, event: dict[str, Any]) -> None:
        self.last = event

    def _publish(self, event: dict[str, Any], *, move: bool) -> None:
        variant: str = event["variant"]
        if self.request.output is None:
            raise ValueError("no output")
        folder = self.host / "taken" / variant
        limit = self.settings.output_limit - self.taken
        files = harvest.take(self.request.output / variant, folder, limit=limit, move=move)
        self.taken += sum((folder / path).stat().st_size for path in files)
        self.on_artefact(variant, folder, event.get("check") or {}, event["seconds"])

    def _told(self) -> PluginError:
        kind = str(self.last.get("kind"))
        message = self.scrub(str(self.last.get("message") or "The converter gave no reason."))
        hint = self.scrub(str(self.last.get("hint") or "The job's log says more."))
        if kind == "out_of_memory":
            message += f" It had used {self.watch.peak >> 20:,} MiB, and"
            message += f" {launch.memory(self.settings) >> 20:,} MiB are allowed."
        if kind == "output_too_large":
            message += f" {self.settings.output_limit:,} bytes are allowed."
        return PluginError(
            kind if KIND.fullmatch(kind) else "plugin_failed", message[:2000], hint[:1000]
        )

    def _crash(self, code: int) -> PluginError:
        number = code - 128 if code > 128 else -code
        try:
            ending = f"was ended by {signal.Signals(number).name}"
        except ValueError:
            ending = f"ended with exit code {code}"
        if number == signal.SIGKILL:
            ending += f", having used {self.watch.peak >> 20:,} MiB of memory"
        return PluginError(
            "plugin_crashed",
            f"{self.fmt.title} {ending}.{self._words()}",
            "The job's log has the whole story.",
        )

    def _words(self) -> str:
        """The end of the log, for a message."""
        lines = self.scrub(self.tail.decode("utf-8", "replace")).split("\n")
        words = "\n".join(line for line in lines if line.strip())[-600:].strip()
        return f" Its last words: {words}" if words else ""

    def scrub(self, text: str) -> str:
        """Text for users: the machine's paths become what they are for."""
        names = {
            self.request.source: "source",
            self.request.output: "output",
            self.request.scratch: "scratch",
            self.fmt.folder: self.fmt.name,
            formats.environment(self.settings, self.fmt): "environment",
            self.settings.data: "data",
            ROOT: "hub",
        }
        known = {str(path): name for path, name in names.items() if path is not None}
        for path in sorted(known, key=len, reverse=True):
            text = text.replace(path, known[path])
        return UNPRINTABLE.sub("?", text)


def _listen(process: psutil.Popen, conversation: _Conversation, log: Log) -> None:
    """Read both pipes until they end; only a bounded part of either is kept."""
    rest, logged = b"", 0
    over: float | None = None
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            if over is None and process.poll() is not None:
                over = time.monotonic() + 5  # what an escaped child holds open is not waited for
            if over is not None and time.monotonic() > over:
                return
            for key, _ in selector.select(0.2):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                conversation.watch.heard = time.monotonic()
                if key.fileobj is process.stderr:
                    conversation.tail = (conversation.tail + data)[-TAIL:]
                    logged = _log(log, data, logged)
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    conversation.hear(line)
                if len(rest) > LINE:
                    conversation.hear(rest)
    if rest:
        conversation.hear(rest)


def _no_number(_name: str) -> None:
    raise ValueError  # NaN and Infinity are not JSON


def _log(log: Log, data: bytes, logged: int) -> int:
    if logged < LOG:
        log.write(data[: LOG - logged])
        if logged + len(data) >= LOG:
            log.write(b"\n[the log is cut here: it grew too large]\n")
        log.flush()
    return logged + len(data)
