"""MLX through mlx-lm: its loading, its choice of what is quantized and how, its files."""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cost
import layout
from recipes import RECIPES, default
from source import Refused, accept

PROMPT = "Once upon a time"
TOKENS = 16  # enough to see that it computes
PATIENCE = 1.25  # seconds that prompt and tokens may take: MLX's CPU back end is slow


def supports(config: dict[str, Any], files: list[str]) -> str | None:
    """Return None, or one sentence on why mlx-lm cannot take this model."""
    try:
        accept(config, files)
    except Refused as refused:
        return refused.message
    return None


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, dict[str, Any]],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """What the variant will cost: bytes of its files, of memory, and of scratch disk."""
    return cost.estimate(config, files, tensors, variant, options)


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write a model in mlx-lm's layout into the folder `output`."""
    import weights  # with mlx, which what is above must not wait for

    recipe = RECIPES[variant]
    group_size = int(options["group_size"])
    try:
        accept(_read_json(source / "config.json"), _files(source))
        names = {name for path in _stored(source) for name in _names(path)}
        job.report(0.0, "Loading")
        plan = weights.plan(source, recipe, group_size, str(options["longrope"]), names)
        skipped, dtype = plan.skipped, plan.config.get("torch_dtype", "their type")

        def report(done: float) -> None:
            job.report(0.95 * done, f"Writing {variant}")

        weights.write(plan, output, job.threads, report)
        _take_tokenizer(source, output, job)
    except Refused as refused:
        job.fail(refused.kind, refused.message, refused.hint)
    except (ValueError, KeyError, TypeError, AssertionError, RuntimeError) as error:
        _refuse(error, job)
    notes = [f"{variant} is written"]
    if skipped:
        size = default(recipe, group_size).group_size
        notes.append(f"{skipped} layers stay {dtype}: their rows do not divide by {size}")
    job.report(1.0, "; ".join(notes))


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Let mlx-lm load the folder and generate from it.

    Returns runtime, prompt, text, tokens, load_seconds and tokens_per_second.
    """
    import mlx.core as mx
    import runtime

    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("mlx-lm", "mlx")]
    device = "Metal" if mx.metal.is_available() else "CPU"
    try:
        seen = runtime.generate(artefact, PROMPT, TOKENS, PATIENCE, job.threads)
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, IndexError) as error:
        job.fail(
            "check_failed",
            f"mlx-lm does not run what was written: {_words(error)}",
            "The log has the whole account. Nothing is published.",
        )
    return {"runtime": f"{versions[0]} ({versions[1]}, {device})"} | seen


def _take_tokenizer(source: Path, output: Path, job: Any) -> None:
    """Copy the tokenizer; where there is only a SentencePiece model, add a tokenizer.json."""
    for name in layout.copied(_files(source)):
        (output / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, output / name)
    if (source / "tokenizer.json").exists():
        return
    from mlx_lm.utils import load_tokenizer

    try:
        tokenizer = load_tokenizer(source, {"trust_remote_code": False})
        made = job.scratch / "tokenizer"
        tokenizer.save_pretrained(made)
        shutil.copyfile(made / "tokenizer.json", output / "tokenizer.json")
    except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise Refused(
            "unsupported_tokenizer",
            f"transformers cannot read the model's tokenizer: {_words(error)}",
            "Add the tokenizer.json of the model that it was trained from.",
        ) from error


def _refuse(error: Exception, job: Any) -> None:
    """Say in the hub's words why mlx-lm stopped, as far as its exception tells."""
    text = str(error)
    sys.stderr.write(f"{type(error).__name__}: {text}\n")
    if "not in model" in text or ("Missing" in text and "parameters" in text):
        job.fail(
            "unexpected_weights",
            f"The stored weights are not those that mlx-lm's model has: {_words(error)}",
            "config.json and weights may belong to different models: mirror it again.",
        )
    job.fail(
        "converter_failed",
        f"mlx-lm cannot convert this model: {_words(error)}",
        "The log has the whole account. Another format may take the model.",
    )


def _words(error: Exception) -> str:
    """An exception in one short line."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}…"


def _stored(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def _names(path: Path) -> list[str]:
    """The names of a file's tensors; Refused if the file is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= min(size - 8, 100_000_000) else {}
            header.pop("__metadata__", None)
            end = max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            end = -1
    if size != 8 + length + end:
        raise Refused(
            "corrupt_weights",
            f"{path.name} is damaged: its header and its size do not agree.",
            "Mirror the model again; if that changes nothing, its publisher has to.",
        )
    return list(header)


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
