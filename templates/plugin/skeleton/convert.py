"""Skeleton: writes the weights of a model into files of their own, unchanged.

Replace the line that copies by what your format needs. Tools are imported inside the functions that
use them, so that `supports` and `estimate` answer at once.
"""
# ruff: noqa: ARG001 - the signatures are the hub's

import shutil
from pathlib import Path
from typing import Any

MEMORY = 64 << 20  # bytes that Python and the tools take; measure yours


def supports(config: dict[str, Any], files: list[str]) -> str | None:
    """Return None, or one sentence on why this model cannot be converted."""
    if "quantization_config" in config:
        return "Skeleton takes models that are not quantized yet."
    return None


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Return the bytes that a variant will need, known before any weight is there."""
    weights = sum(size for name, size in files.items() if name.endswith(".safetensors"))
    return {"size": weights, "memory": MEMORY, "scratch": 0}


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write the files of one variant into the folder `output`."""
    parts = sorted(source.glob("*.safetensors"))
    for number, part in enumerate(parts):
        job.report(number / len(parts), f"copying {part.name}")
        shutil.copyfile(part, output / f"{job.source_name}-{part.name}")


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Load what was written with the tool that its users have; return what was seen."""
    import safetensors

    names: list[str] = []
    for path in sorted(artefact.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="numpy") as file:
            names += file.keys()
    if not names:
        job.fail("check_failed", "There is no tensor in the files.", "Mirror the model again.")
    return {"runtime": f"safetensors {safetensors.__version__}", "text": f"{len(names)} tensors"}
