"""The reference plugin: a converter in the least code, which misbehaves on command."""

import json
import time
from pathlib import Path
from typing import Any

import acts

MiB = 1 << 20


def supports(config: dict[str, Any], files: list[str]) -> str | None:  # noqa: ARG001
    """Refuse what says so itself."""
    if config.get("model_type") == "unsupported":
        return "Echo does not know the architecture 'unsupported'."
    return None


def estimate(
    config: dict[str, Any],
    files: dict[str, int],  # noqa: ARG001
    tensors: dict[str, Any],  # noqa: ARG001
    variant: str,  # noqa: ARG001
    options: dict[str, Any],
) -> dict[str, int]:
    """One line, the megabytes that were asked for, and an interpreter."""
    line = 16 + len(config.get("model_type", "model"))
    memory = 16 * MiB + options["allocate"] * MiB
    return {"size": line + options["write"] * MiB, "memory": memory, "scratch": 0}


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write one line about the model, after whatever the options ask for."""
    config = json.loads((source / "config.json").read_bytes())
    if options["say"]:
        print(options["say"], flush=True)
    filled = [bytearray(b"x") * MiB for _ in range(options["allocate"])]
    began = time.monotonic()
    while (slept := time.monotonic() - began) < options["sleep"]:
        job.report(slept / options["sleep"], "sleeping")
        time.sleep(min(0.1, options["sleep"] - slept))
    with (output / f"{job.source_name}-{variant}.txt").open("w") as file:
        line = f"{job.source_name} is a {config.get('model_type', 'model')}\n"
        file.write(line.upper() if variant == "loud" else line)
        for _ in range(options["write"]):
            file.write("x" * (MiB - 1) + "\n")
    del filled
    found = acts.ACTS[options["act"]](options["target"], source, output, job)
    if found is not None:
        (output / "found.txt").write_text(str(found))
    job.report(1, "written")


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Read it back."""
    text = (artefact / f"{job.source_name}-{job.variant}.txt").read_text()
    return {"runtime": "echo", "text": text[:80]}
