"""ONNX Runtime GenAI through the model builder of onnxruntime-genai.

Each variant is a run of the builder in a process of its own, with the weights streamed (stream.py).
Quantized weights stay in the job's scratch folder, where the next variant finds them.
"""

import json
import re
import shutil
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import costs
from accept import Refused, accept

HERE = Path(__file__).parent
PROMPT = "Once upon a time"
TOKENS = 16  # enough to see that the files compute, quick enough for a large model on a CPU
# What the builder and its libraries read; code and pickles are not among them.
READ = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")


def supports(config: dict[str, Any], files: list[str]) -> str | None:
    """Return None, or one sentence on why this model cannot be built."""
    try:
        accept(config, files)
    except Refused as refused:
        return refused.message
    return None


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, Any],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Bytes that a variant will have, and that its conversion takes of memory and scratch."""
    return costs.estimate(config, files, tensors, variant, options)


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write the folder `variant` into `output`: graph, weights, genai_config.json, tokenizer."""
    try:
        config = _read(source / "config.json")
        accept(config, [str(path.relative_to(source)) for path in source.rglob("*")])
        _build(_view(source, job.scratch / "view"), output / variant, variant, options, job)
    except Refused as refused:
        job.fail(refused.kind, refused.message, refused.hint)
    if (source / "tokenizer.json").exists():
        # As it was published: the builder writes what transformers makes of it.
        shutil.copyfile(source / "tokenizer.json", output / variant / "tokenizer.json")
    job.report(1.0, f"{variant} is written")


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Let the runtime generate from a CPU variant; look through the graph of any other."""
    folder = artefact / job.variant
    result = job.scratch / "check.json"
    if job.variant.startswith("cpu-"):
        arguments = [str(folder), str(result), PROMPT, str(TOKENS), str(job.threads)]
        command = _program("generate.py", *arguments)
    else:
        command = _program("inspect_graph.py", str(folder), str(result))
    try:
        job.run(command)
    except CalledProcessError as failed:
        job.fail(
            "check_failed",
            f"ONNX Runtime GenAI does not take {job.variant}: {_last_words(failed)}",
            "The log has the runtime's own account. The files are not published.",
        )
    seen = _read(result)
    if "runtime" not in seen:
        seen = {"runtime": f"onnxruntime-genai {version('onnxruntime-genai')}"} | seen
    return seen


def _build(view: Path, folder: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Run the builder; raises Refused."""
    provider, precision = variant.split("-")
    folder.mkdir()
    request = job.scratch / f"{variant}.json"
    request.write_text(
        json.dumps(
            {
                "source": str(view),
                "output": str(folder),
                "cache": str(job.scratch / "cache"),
                "store": str(job.scratch / "store"),
                "precision": precision,
                "provider": provider,
                "options": options,
            }
        ),
        encoding="utf-8",
    )

    def heard(line: str) -> None:
        if found := re.match(r"progress (\S+) (.*)", line):
            job.report(0.95 * float(found[1]), found[2])

    try:
        job.run(_program("build.py", str(request)), heard=heard)
    except CalledProcessError as failed:
        text = failed.output
        if failed.returncode == -signal.SIGKILL or re.search(r"MemoryError|bad_alloc", text):
            raise Refused(
                "out_of_memory",
                "The memory that a job may use was not enough.",
                "Give the worker more memory, or convert a smaller model.",
            ) from failed
        if "SafetensorError" in text:
            raise Refused(
                "corrupt_weights",
                f"The weights cannot be read: {_last_words(failed)}",
                "Mirror the model again; if that changes nothing, its publisher has to.",
            ) from failed
        raise Refused(
            "builder_failed",
            f"The model builder ended with {failed}: {_last_words(failed)}",
            "The log has all of its output. Another format may work.",
        ) from failed


def _view(source: Path, view: Path) -> Path:
    """A folder of links to what may be read of the source; its config.json names no code."""
    if view.exists():
        return view
    growing = view.with_name("view.partial")
    growing.mkdir(exist_ok=True)
    for path in sorted({path for pattern in READ for path in source.glob(pattern)}):
        (growing / path.name).unlink(missing_ok=True)
        (growing / path.name).symlink_to(path)
    for name in ("config.json", "tokenizer_config.json"):
        if (source / name).exists():
            values = _read(source / name)
            values.pop("auto_map", None)
            (growing / name).unlink()
            (growing / name).write_text(json.dumps(values), encoding="utf-8")
    growing.rename(view)
    return view


def _program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", str(HERE / name), *arguments]


def _last_words(failed: CalledProcessError) -> str:
    """The exception that ended a program, without the traceback; else its last lines."""
    lines = failed.output.split("\n")
    for line in reversed(lines):
        if re.match(r"[\w.]*(Error|Exception|Interrupt): ", line):
            return line.strip()
    return "\n".join(lines[-5:]).strip() or "it said nothing"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
