"""OpenVINO with optimum-intel and NNCF: one export in the job's scratch, each variant from it.

The tools run as children (export.py, half.py, quantize.py, generate.py): this process stays small.
"""

import json
import shutil
import signal
import sys
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, NoReturn

import cost
from accept import Refused, accept
from ir import MODEL
from progress import said
from recipes import openvino_config
from source import (
    CONFIG,
    Damaged,
    float_type,
    header,
    view,
    weights_of,
    write_json,
)

HERE = Path(__file__).parent
# A step ends at these shares of a variant's progress.
EXPORTED, WRITTEN = 0.5, 0.9
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
SHORT = ("bad_alloc", "MemoryError", "Cannot allocate memory", "can't allocate memory")


def supports(config: dict[str, Any], files: list[str]) -> str | None:
    """None, or one sentence why not."""
    try:
        accept(config, files)
    except Refused as refused:
        return f"{refused.message} {refused.hint}".strip()
    return None


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Bytes: of the files, the most of memory, the most in scratch."""
    return cost.estimate(config, files, tensors, variant, options)


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write the files of a variant."""
    config = json.loads((source / CONFIG).read_bytes())
    try:
        accept(config, [str(path.relative_to(source)) for path in source.rglob("*")])
    except Refused as refused:
        job.fail(refused.kind, refused.message, refused.hint)
    export = _exported(source, config, job)
    for path in sorted(export.iterdir()):
        if path.stem != MODEL:
            shutil.copyfile(path, output / path.name)
    if variant == "fp16":
        command = ["half.py", str(export), str(output)]
    else:
        command = ["quantize.py", str(export), str(output), variant, json.dumps(options)]
    answer = _run(command, job, EXPORTED, WRITTEN, "quantizer_failed")
    if answer.get("fits") is False:
        job.fail(
            "out_of_range",
            "Some weights are beyond the range of FP16.",
            "Take int8, whose scales are computed from the original weights.",
        )
    write_json(output / "openvino_config.json", openvino_config(variant, options))
    job.report(WRITTEN, "written")


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Load the artefact in OpenVINO GenAI and generate."""
    command = ["generate.py", str(artefact), str(job.threads)]
    answer = _run(command, job, WRITTEN, 1.0, "check_failed")
    if not answer.get("finite"):
        job.fail(
            "check_failed",
            "The model computes numbers that are not finite.",
            "Look whether the original model does so too; int8 keeps more of the range than fp16.",
        )
    return dict(answer["seen"])


def _exported(source: Path, config: dict[str, Any], job: Any) -> Path:
    """The export that all variants of the job share: made by the first of them."""
    export = job.scratch / "export"
    if export.exists():
        return export
    folders = {name: job.scratch / name for name in ("export.part", "view", "unpacked")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    weights = weights_of(source)
    try:
        tensors = [tensor for path in weights for tensor in header(path).values()]
    except Damaged as damaged:
        job.fail(
            "corrupt_weights", f"{damaged} is damaged or not whole.", "Mirror the model again."
        )
    unpacked = None
    if packing := config.get("quantization_config"):
        settings = json.dumps(packing)
        command = ["bitnet.py", str(folders["unpacked"]), settings, *map(str, weights)]
        _run(command, job, 0.0, 0.1, "unpacking_failed")
        unpacked = sorted(folders["unpacked"].iterdir())
    view(source, folders["view"], unpacked)
    _run(
        ["export.py", str(folders["view"]), str(folders["export.part"]), float_type(tensors)],
        job,
        0.1 if unpacked else 0.0,
        EXPORTED,
        "export_failed",
    )
    for name in ("view", "unpacked"):
        shutil.rmtree(folders[name])
    folders["export.part"].rename(export)
    return export


def _run(command: list[str], job: Any, start: float, end: float, failure: str) -> dict[str, Any]:
    """Run one of our scripts, whose progress is the part of the job's from `start` to `end`.

    Returns what it said beside its progress; refuses as it refuses.
    """
    answer: dict[str, Any] = {}

    def heard(line: str) -> bool:
        words = said(line)
        if words is None:
            return not line  # what is said comes after an empty line
        if "done" in words:
            job.report(start + (end - start) * words["done"], words["message"])
        else:
            answer.update(words)
        return True

    job.report(start, "starting " + command[0].removesuffix(".py"))
    program = [sys.executable, str(HERE / command[0]), *command[1:]]
    try:
        job.run(program, environment=ENVIRONMENT, heard=heard)
    except CalledProcessError as failed:
        if "refused" in answer:
            job.fail(*answer["refused"])
        _explain(failed, failure, job)
    return answer


def _explain(failed: CalledProcessError, failure: str, job: Any) -> NoReturn:
    """Refuse with the cause that the child's last lines tell."""
    words = failed.output
    if failed.returncode == -signal.SIGKILL or any(sign in words for sign in SHORT):
        job.fail(
            "out_of_memory",
            "The tools were short of memory.",
            "Give the hub's workers more memory, or convert a smaller model.",
        )
    if "No space left on device" in words:
        job.fail("disk_full", "The disk is full.", "Make room in the hub's data folder.")
    last = words.rpartition("\n")[2][:500] or "it said nothing"
    job.fail(
        failure,
        f"The step ended with {failed}: {last}",
        "The log has the tool's own words.",
    )
    raise AssertionError("job.fail does not return")
