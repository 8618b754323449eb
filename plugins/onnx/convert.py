"""ONNX through optimum's exporter and onnxruntime's quantizers, for transformers.js and optimum.

The graph is exported once a job, without weights; each variant is that graph, rewritten, with the
weights streamed into it from the source.
"""

import json
import signal
import sys
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import costs
import files
from accept import Refused, accept
from layout import FILES, external, unpacked

HERE = Path(__file__).parent
PROMPT = "Once upon a time"
TOKENS = 16  # enough to see that the file computes, quick enough for a large model on a CPU
EXPORT = 0.3  # of a variant's progress, where it has to wait for the export


def supports(config: dict[str, Any], files: list[str]) -> str | None:
    """Return None, or one sentence on why this model cannot be exported."""
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
    return costs.estimate(config, files, tensors, variant, options["embedding_bits"])


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write `onnx/model….onnx` with its data files, configuration and tokenizer, into `output`."""
    try:
        config = files.read(source / "config.json")
        accept(config, [str(path.relative_to(source)) for path in source.rglob("*")])
        _write(source, output, variant, options, job, config)
    except Refused as refused:
        job.fail(refused.kind, refused.message, refused.hint)


def _write(
    source: Path,
    output: Path,
    variant: str,
    options: dict[str, Any],
    job: Any,
    config: dict[str, Any],
) -> None:
    import onnx
    from store import write
    from variants import assemble
    from weights import Unreadable, Weights

    try:
        weights = Weights(source, config)
        exported = job.scratch / "exported"
        start = 0.0 if exported.exists() else EXPORT
        if not exported.exists():
            _export(source, exported, job)
        name = FILES[variant]
        beside = external(unpacked(weights.stored()), config)
        graph = assemble(
            onnx.load(exported / "graph.onnx"), weights, variant, config, options["embedding_bits"]
        )

        def report(done: int, total: int) -> None:
            said = f"Writing {variant}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            job.report(start + (0.99 - start) * done / total, said)

        (output / "onnx").mkdir()
        write(graph, output / "onnx", name, beside.get(name, 0), report)
        files.write(source, output, exported / "tokenizer.json", beside)
    except Unreadable as unreadable:
        raise Refused(
            "corrupt_weights",
            str(unreadable),
            "Mirror the model again; if that changes nothing, its publisher has to.",
        ) from unreadable
    job.report(1.0, f"{variant} is written")


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Load the one .onnx file in the folder `artefact`; onnxruntime generates from it, greedily.

    Returns runtime, prompt, text, tokens, load_seconds and tokens_per_second.
    """
    found = sorted((artefact / "onnx").glob("*.onnx"))
    if len(found) != 1:
        job.fail(
            "check_failed",
            f"One .onnx file was expected, and {len(found)} are there.",
            "Report this to the authors of the plugin.",
        )
    result = job.scratch / "check.json"
    paths = [str(found[0]), str(artefact / "tokenizer.json"), str(result)]
    command = _program("generate.py", *paths, PROMPT, str(TOKENS), str(job.threads))
    try:
        job.run(command)
    except CalledProcessError as failed:
        job.fail(
            "check_failed",
            f"onnxruntime does not run {found[0].name}: {_last_words(failed)}",
            "The log has the runtime's own account. The file is not published.",
        )
    seen = json.loads(result.read_text(encoding="utf-8"))
    seen.pop("ids")
    return seen


def _export(source: Path, exported: Path, job: Any) -> None:
    """Run the exporter; raises Refused."""
    job.report(0.01, "Exporting the graph")
    view = job.scratch / "view"
    files.clean(source, view)
    # Under another name until it is whole: an export that a crash cut short is never used.
    growing = exported.with_name("exported.partial")
    growing.mkdir(exist_ok=True)
    command = _program("export.py", str(view), str(growing))

    def watch() -> None:
        if (growing / "traced.onnx").exists():
            job.report(0.7 * EXPORT, "Folding constants")

    try:
        job.run(command, watch=watch)
    except CalledProcessError as failed:
        if failed.returncode == -signal.SIGKILL or "MemoryError" in failed.output:
            raise Refused(
                "out_of_memory",
                "The memory that a job may use was not enough to export the graph.",
                "Give the worker more memory, or convert a smaller model.",
            ) from failed
        raise Refused(
            "exporter_failed",
            f"optimum's exporter ended with {failed}: {_last_words(failed)}",
            "The log has all of its output.",
        ) from failed
    growing.rename(exported)
    job.report(EXPORT, "The graph is exported")


def _program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", str(HERE / name), *arguments]


def _last_words(failed: CalledProcessError) -> str:
    """The exception that ended a program, without the traceback; else its last lines."""
    lines = failed.output.split("\n")
    for line in reversed(lines):
        head, _, rest = line.partition(":")
        if rest and head.replace(".", "").isidentifier() and head[0] != " ":
            return line.strip()
    return "\n".join(lines[-5:]).strip() or "it said nothing"
