"""The plugin's side of the wire. Stdlib only: it runs in the plugin's own environment.

    <environment>/bin/python -I workers/shim.py request.json

A plugin that is not Python sets `command` in its manifest and speaks the same protocol; it is
started in its own folder, with the path of request.json as its last argument.

request.json, one object:
    api           1
    action        "convert", "appraise" or "smoke"
    plugin        the plugin's folder, read-only
    source        convert: the folder with the model, read-only
    output        convert: a folder; the files of a variant go into output/<variant>/, which the
                  converter makes
    scratch       convert: a folder that all variants share; it goes when the job ends
    variants      convert: the names of the variants to make, in this order
    options       convert: every option of the manifest with its value
    source_name   convert: the model's name for file names, as "Qwen_Qwen3-0.6B"
    threads       how many threads to use
    memory        how many bytes of memory may be used
    earlier       convert: a read-only folder with one folder a variant that this plugin made of the
                  same commit before
    config        appraise: config.json of the model
    files         appraise: the sizes of its files in bytes, by path
    tensors       appraise: {name: {"dtype": "BF16", "shape": [2, 3]}}, from the headers
                  (variants and options say what is to be estimated; there may be none)
    smoke, tools  smoke: modules to import, packages whose versions are wanted

Events, one JSON object a line on stdout; other keys are ignored:
    {"event": "progress", "variant": "Q8_0", "done": 0.5, "message": "layer 12 of 24"}
    {"event": "artefact", "variant": "Q8_0", "check": {…}, "seconds": 12.3}
                  its files are complete: the host takes them away at once
    {"event": "done"}                  the last line; of appraise with "reason": null or a sentence,
                                       and "estimates": {variant: {"size", "memory", "scratch"}},
                                       of smoke with "versions": {package: version}
    {"event": "error", "kind": "unsupported_model", "message": "cause", "hint": "next step"}

A line is at most 1 MiB. stderr is the log. Success is exit code 0 and `done` as the last event and
an artefact for each variant asked for and files that pass the host's own validation: at least one a
variant, regular files with one name only, no symbolic links.
SIGTERM asks to end; ten seconds later everything is killed.

For Python this file does all of that. It moves fd 1 to stderr before it imports anything else of
the plugin, because converters and their children print. convert.py then defines
    convert(source, output, variant, options, job)   paths, a name, a dict; writes into output
    supports(config, files)      optional: None, or one sentence why not; files are names
    estimate(config, files, tensors, variant, options)
                                 optional: {"size": …, "memory": …, "scratch": …} in bytes
    check(artefact, job)         optional: loads the folder's files in their runtime; returns a dict
with job.report(done, message), job.fail(kind, message, hint), job.run(command), which starts a tool
as a child process, and job.scratch, job.earlier, job.source_name, job.threads, job.memory,
job.variant, job.options.
"""

import codecs
import errno
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

KEPT = 200  # lines of a child's output: a Python traceback with the context before it
LOOK = 0.5  # seconds between two calls of `watch`


class Refusal(BaseException):
    """What job.fail raises; not an Exception, so that no `except Exception` swallows it."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


class Failed(subprocess.CalledProcessError):
    """What job.run raises; as text, how the child ended: `exit code 1`, `SIGKILL`."""

    def __str__(self) -> str:
        code = self.returncode
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class Wire:
    """The way to the host: what was stdout, kept from everybody else."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)  # not inherited by programs that are started from here
        os.dup2(2, 1)

    def send(self, event: str, **values: Any) -> None:
        """Write one event as a line."""
        line = json.dumps({"event": event, **values}, default=str).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]


class Job:
    """What a plugin's functions get to talk to the host with."""

    def __init__(self, request: dict[str, Any], wire: Wire, variant: str) -> None:
        self.scratch = Path(request["scratch"])
        self.earlier = Path(request["earlier"])
        self.source_name: str = request["source_name"]
        self.threads: int = request["threads"]
        self.memory: int = request["memory"]
        self.options: dict[str, Any] = request["options"]
        self.variant = variant
        self._wire = wire
        self._sent: tuple[float, str, float] = (-1.0, "", 0.0)

    def report(self, done: float, message: str = "") -> None:
        """Tell how far this variant is, from 0 to 1. May be called as often as is handy."""
        done = min(1.0, max(0.0, float(done)))
        then, said, at = self._sent
        now = time.monotonic()
        # A converter may report every tensor: the host needs a few a second, and every message.
        if message == said and done < 1 and done - then < 0.01 and now - at < 1:
            return
        self._sent = (done, message, now)
        self._wire.send("progress", variant=self.variant, done=done, message=str(message))

    def fail(self, kind: str, message: str, hint: str = "") -> NoReturn:
        """Refuse, with a cause and the next step; the job fails with exactly these words."""
        raise Refusal(kind, message, hint)

    def run(
        self,
        command: list[str],
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        watch: Callable[[], object] | None = None,
        heard: Callable[[str], object] | None = None,
    ) -> list[str]:
        """Run a tool as a child process, its output going to the log; return its last lines.

        It starts in `folder` (else in job.scratch). It sees the variables of this process, with no
        network, no cache of a user, job.threads threads, and those of `environment`.
        `watch` is called about every half second. `heard` gets each line, without its end; one that
        it returns something true for is neither logged nor kept. If one of them raises, the child
        is killed. An exit code that is not 0 raises subprocess.CalledProcessError: its `output` are
        the last lines, its `returncode` is negative for a signal, its text tells which.
        """
        kept: deque[str] = deque(maxlen=KEPT)
        with subprocess.Popen(
            command,
            cwd=folder or self.scratch,
            env=os.environ | self._surroundings() | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ) as process:
            assert process.stdout is not None
            try:
                for line in _lines(process.stdout, watch):
                    if heard is None or not heard(line):
                        sys.stderr.write(f"{line}\n")
                        kept.append(line)
                process.wait()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise Failed(process.returncode, command, "\n".join(kept))
        return list(kept)

    def _surroundings(self) -> dict[str, str]:
        return {
            "HF_HUB_OFFLINE": "1",
            "HOME": str(self.scratch),
            "HF_HOME": str(self.scratch / "huggingface"),
            "OMP_NUM_THREADS": str(self.threads),
            # OpenMP's threads spin at barriers by default. Where the processors are shared, each
            # then waits for one that is not running: a thousand times slower on a small model.
            "OMP_WAIT_POLICY": "passive",
        }


def convert(request: dict[str, Any], wire: Wire) -> dict[str, Any]:
    """Make every variant that was asked for."""
    plugin = _load(request)
    for variant in request["variants"]:
        began = time.monotonic()
        output = Path(request["output"], variant)
        output.mkdir(exist_ok=True)
        job = Job(request, wire, variant)
        plugin.convert(Path(request["source"]), output, variant, dict(request["options"]), job)
        check = plugin.check(output, job) if hasattr(plugin, "check") else None
        seconds = round(time.monotonic() - began, 3)
        wire.send("artefact", variant=variant, check=check, seconds=seconds)
    return {}


def appraise(request: dict[str, Any], _wire: Wire) -> dict[str, Any]:
    """Ask the plugin whether it can convert such a model, and what each variant would cost."""
    plugin = _load(request)
    config, files, tensors = (request[name] for name in ("config", "files", "tensors"))
    if hasattr(plugin, "supports") and (reason := plugin.supports(config, list(files))):
        return {"reason": reason}
    estimates: dict[str, Any] = {}
    answer: dict[str, Any] = {"reason": None, "estimates": estimates}
    if not hasattr(plugin, "estimate"):
        return answer
    for variant in request["variants"]:
        options = dict(request["options"])
        try:
            estimates[variant] = plugin.estimate(config, files, tensors, variant, options)
        except Exception as error:  # noqa: BLE001 - the plugin's code, at the edge of the process
            # A conversion can do without: the host has an estimate of its own, and logs this.
            traceback.print_exc()
            answer["estimate_error"] = f"{variant}: {type(error).__name__}: {error}"[:2000]
    return answer


def smoke(request: dict[str, Any], _wire: Wire) -> dict[str, Any]:
    """Prove the environment by imports, and tell the versions of the tools."""
    for module in request["smoke"]:
        importlib.import_module(module)
    return {"versions": {tool: importlib.metadata.version(tool) for tool in request["tools"]}}


ACTIONS = {"convert": convert, "appraise": appraise, "smoke": smoke}


def main() -> int:
    """Do what the request asks; the exit code is 0 only if the last event is `done`."""
    wire = Wire()
    try:
        request = json.loads(Path(sys.argv[1]).read_bytes())
        result = ACTIONS[request["action"]](request, wire)
    except Refusal as refusal:
        wire.send("error", kind=refusal.kind, message=refusal.message, hint=refusal.hint)
        return 1
    except Exception as error:  # noqa: BLE001 - the edge of the process: it becomes a typed event
        traceback.print_exc()
        wire.send(
            "error", kind=_kind(error), message=f"{type(error).__name__}: {error}"[:2000], hint=""
        )
        return 1
    wire.send("done", **result)
    return 0


def _lines(pipe: IO[bytes], watch: Callable[[], object] | None) -> Iterator[str]:
    """The lines from a pipe until it is closed, with `watch` called in between."""
    # A progress bar's carriage returns end lines too.
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8")("replace"), translate=True
    )
    rest, looked = "", time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(LOOK):
                piece = pipe.read(1 << 16)
                *lines, rest = (rest + decoder.decode(piece, final=not piece)).split("\n")
                yield from (line.rstrip() for line in lines)
                if not piece:
                    break
            if watch is not None and time.monotonic() - looked >= LOOK:
                watch()
                looked = time.monotonic()
    if rest:
        yield rest.rstrip()


def _kind(error: Exception) -> str:
    """The name of a failure that the limits of the host may have caused."""
    if isinstance(error, MemoryError):
        return "out_of_memory"
    numbers = {errno.EFBIG: "output_too_large", errno.ENOSPC: "disk_full"}
    number = error.errno if isinstance(error, OSError) else None
    return numbers.get(number or 0, "plugin_crashed")


def _load(request: dict[str, Any]) -> Any:
    """Import convert.py from the plugin's folder, whose other modules it may import too."""
    folder = Path(request["plugin"])
    sys.path.insert(0, str(folder))
    specification = importlib.util.spec_from_file_location("convert", folder / "convert.py")
    if specification is None or specification.loader is None:
        raise ImportError("convert.py cannot be loaded")
    module = importlib.util.module_from_spec(specification)
    sys.modules["convert"] = module
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
