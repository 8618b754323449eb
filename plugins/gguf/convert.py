"""GGUF through llama.cpp's own tools: the converter for the base file, the quantizer for the rest.

One job writes one base, in the float type of its source, however many variants are made from it.
"""

import json
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import cost
from llama import FILE_TYPES
from mixture import matrix_use
from source import Refused, accept, link, read_weights

HERE = Path(__file__).parent
FLOATS = ("F32", "F16", "BF16")
IMPORTANCE = "-imatrix.gguf"
PROMPT = "Once upon a time"
TOKENS = 16  # enough to see that the file computes, quick enough for a 14 B model on a CPU
QUIET = {"TQDM_DISABLE": "1"}

Step = tuple[Path, str, Callable[[Path, Callable[[], None]], list[str]]]
"""What to write, as which variant, and how."""


def supports(config: dict[str, Any], files: list[str]) -> str | None:
    """Return None, or one sentence on why llama.cpp's converter cannot take this model."""
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
    """What making a variant will take, in bytes: `size`, `memory` and `scratch`."""
    return cost.estimate(config, files, tensors, variant, options)


def convert(source: Path, output: Path, variant: str, options: dict[str, Any], job: Any) -> None:
    """Write `{source_name}-{variant}.gguf` into the folder `output`.

    The base and the importance matrix are kept in `job.scratch`, where the next variant of the
    same job finds them. The matrix, where one is used, is written beside the file.
    """
    target = output / f"{job.source_name}-{variant}.gguf"
    try:
        accept(_read_json(source / "config.json"), _files(source))
        weights = read_weights(source)
        base = job.scratch / f"base-{weights.base}.gguf"
        steps: list[Step] = []
        if variant in FLOATS and variant != weights.base:
            steps.append((target, variant, partial(_write_base, source, variant, job)))
        elif not base.exists():
            steps.append((base, weights.base, partial(_write_base, source, weights.base, job)))
        importance, notes = None, [f"{variant} is written"]
        if variant in FILE_TYPES:
            use = matrix_use(variant, options)
            if use != "no":
                # The base comes first here: the matrix is computed with it.
                _take(steps, weights.elements, job)
                steps = []
                importance, note = _importance(base, use, job)
                notes += note
            embeddings = "Q8_0" if options.get("embedding_q8_0") else ""
            quantize = partial(_quantize, base, variant, embeddings, importance, job)
            steps.append((target, variant, quantize))
        notes += _take(steps, weights.elements, job)
    except Refused as refused:
        job.fail(refused.kind, refused.message, refused.hint)
    if variant == weights.base:
        shutil.copyfile(base, target)  # not a link: what the hub takes away is to have one name
    if importance:
        shutil.copyfile(importance, output / importance.name)
    job.report(1.0, "; ".join(notes))


def check(artefact: Path, job: Any) -> dict[str, Any]:
    """Load the one .gguf in the folder `artefact` and let llama.cpp generate from it.

    Returns runtime, prompt, text, tokens, load_seconds and tokens_per_second.
    """
    files = [path for path in sorted(artefact.glob("*.gguf")) if not path.match(f"*{IMPORTANCE}")]
    if len(files) != 1:
        job.fail(
            "check_failed",
            f"One .gguf file was expected, and {len(files)} are there.",
            "Report this to the authors of the plugin.",
        )
    result = job.scratch / "check.json"
    arguments = [str(files[0]), str(result), PROMPT, str(TOKENS), str(job.threads)]
    try:
        job.run(_llama("generate", *arguments), environment=QUIET)
    except CalledProcessError as failed:
        job.fail(
            "check_failed",
            f"llama.cpp does not run {files[0].name}: {_last_words(failed)}",
            "The log has llama.cpp's own account. The file is not published.",
        )
    return _read_json(result)


def _take(steps: list[Step], elements: int, job: Any) -> list[str]:
    """Take the steps one after the other; return what is worth noting."""
    notes = []
    total = sum(_expected(elements, name) for _, name, _ in steps)
    before = 0
    for path, name, write in steps:
        expected = _expected(elements, name)
        # Under another name until it is whole: a base that a crash cut short is never used.
        growing = path.with_name(f"{path.name}.partial")
        notes += write(growing, _meter(job, growing, name, before, expected, total))
        growing.rename(path)
        before += expected
    return notes


def _importance(base: Path, use: str, job: Any) -> tuple[Path | None, list[str]]:
    """The importance matrix of this job, an earlier one's, or a new one; and what to note.

    None if llama.cpp cannot compute it and the variant can do without. Raises Refused.
    """
    name = f"{job.source_name}{IMPORTANCE}"
    path = job.scratch / name
    if path.exists():
        return path, []
    if found := sorted(job.earlier.glob(f"*/{name}")):
        shutil.copyfile(found[0], path)
        return path, []
    progress, growing = job.scratch / "progress", path.with_suffix(".partial")
    progress.unlink(missing_ok=True)
    job.report(0.0, "Computing the importance matrix")

    def watch() -> None:
        words = progress.read_text(encoding="utf-8").split() if progress.exists() else []
        if len(words) == 2:
            done, all_ = map(int, words)
            # Half of the way of this variant, whatever it is: how long it takes is not known.
            message = f"Computing the importance matrix: {done} of {all_} chunks of text"
            job.report(done / all_ / 2, message)

    command = [sys.executable, "-I", str(HERE / "importance.py"), str(base)]
    command += [str(HERE / "calibration.txt"), str(growing), str(progress), str(job.threads)]
    try:
        job.run(command, environment=QUIET, watch=watch)
    except CalledProcessError as failed:
        reason = f"llama.cpp does not compute an importance matrix: {_last_words(failed)}"
        if shortage := _shortage(failed):
            raise shortage from failed
        if use == "must":
            raise Refused(
                "no_importance_matrix",
                f"This variant needs an importance matrix, and {reason}",
                "Take Q3_K_M or a larger variant, which do without one.",
            ) from failed
        return None, [f"without an importance matrix, for {reason}"]
    growing.rename(path)
    return path, []


def _write_base(
    source: Path, float_type: str, job: Any, path: Path, watch: Callable[[], None]
) -> list[str]:
    """Run llama.cpp's converter; return what is worth noting. Raises Refused."""
    view = link(source, job.scratch / "source" / _title(job.source_name))
    # -E and -s, not -I: the script finds its own modules through its folder, and nothing else of
    # the surroundings gets in.
    command = [sys.executable, "-E", "-s", "-B", str(HERE / "converter.py"), str(view)]
    command += ["--outfile", str(path), "--outtype", float_type.lower()]
    try:
        job.run(command, environment=QUIET, watch=watch)
    except CalledProcessError as failed:
        raise _converter_refusal(failed, source) from failed
    return []


def _quantize(
    base: Path,
    variant: str,
    embeddings: str,
    importance: Path | None,
    job: Any,
    path: Path,
    watch: Callable[[], None],
) -> list[str]:
    """Run llama.cpp's quantizer; return what is worth noting. Raises Refused."""
    command = _llama("quantize", str(base), str(path), variant, str(job.threads), embeddings)
    command += [str(importance)] if importance else []
    try:
        tail = job.run(command, environment=QUIET, watch=watch)
    except CalledProcessError as failed:
        raise _shortage(failed) or Refused(
            "quantizer_failed",
            f"llama.cpp's quantizer ended with {failed}: {_last_words(failed)}",
            "The log has all of its output. Another variant may work.",
        ) from failed
    found = re.search(r"(\d+ of \d+) tensor\(s\) required fallback", "\n".join(tail))
    return [f"{found[1]} tensors do not fit its blocks and took a larger type"] if found else []


def _llama(*arguments: str) -> list[str]:
    return [sys.executable, "-I", str(HERE / "llama.py"), *arguments]


def _converter_refusal(failed: CalledProcessError, source: Path) -> Refused:
    """What the converter's last lines say about why it stopped."""
    text = failed.output
    if shortage := _shortage(failed):
        return shortage
    if re.search(r", in _?set_vocab", text):  # a frame of the traceback: the tokenizer's turn
        mark = re.search(r"chkhsh:\s+([0-9a-f]{64})", text)
        which = f" (pre-tokenizer {mark[1]})" if mark else ""
        return Refused(
            "unsupported_tokenizer",
            f"llama.cpp's converter does not take the tokenizer {_tokenizer(source)}{which}: "
            f"{_last_words(failed)}",
            "It knows byte-pair tokenizers of published models one by one, and any SentencePiece "
            "tokenizer.model. A later version of this plugin may know this one.",
        )
    return Refused(
        "converter_failed",
        f"llama.cpp's converter ended with {failed}: {_last_words(failed)}",
        "The log has all of its output.",
    )


def _shortage(failed: CalledProcessError) -> Refused | None:
    """The refusal if it was memory or disk that ran out, the same for every tool."""
    text = failed.output
    killed = failed.returncode == -signal.SIGKILL
    if killed or re.search(r"MemoryError|bad_alloc|not enough memory", text):
        return Refused(
            "out_of_memory",
            "The memory that a job may use was not enough.",
            "Give the worker more memory, or convert a smaller model.",
        )
    if "No space left on device" in text:
        return Refused(
            "disk_full", "The disk is full.", "Free space where the worker keeps its scratch files."
        )
    return None


def _last_words(failed: CalledProcessError) -> str:
    """The exception that ended a Python tool, without the traceback; else its last lines."""
    lines = failed.output.split("\n")
    for index in range(len(lines) - 1, -1, -1):
        if re.match(r"[\w.]*(Error|Exception|Interrupt): ", lines[index]):
            return "\n".join(lines[index:]).strip()
    return "\n".join(lines[-5:]).strip() or "it said nothing"


def _tokenizer(source: Path) -> str:
    """The class that the model's tokenizer_config.json names, or `of an unnamed class`."""
    path = source / "tokenizer_config.json"
    name = _read_json(path).get("tokenizer_class") if path.exists() else None
    return name or "of an unnamed class"


def _meter(
    job: Any, path: Path, name: str, before: int, expected: int, total: int
) -> Callable[[], None]:
    """A function that reports how much of `total` is written, by the size of the growing `path`."""

    last = -1

    def report() -> None:
        nonlocal last
        size = min(path.stat().st_size if path.exists() else 0, expected)
        if size == last:
            return
        last = size
        message = f"Writing {name}: {size / 1e6:,.0f} of about {expected / 1e6:,.0f} MB"
        job.report((before + size) / total, message)

    return report


def _expected(elements: int, name: str) -> int:
    """About how many bytes `elements` weights take in the variant `name`."""
    manifest = tomllib.loads((HERE / "plugin.toml").read_text(encoding="utf-8"))
    bits = next(variant["bits"] for variant in manifest["variants"] if variant["name"] == name)
    return int(elements * bits / 8)


def _title(source_name: str) -> str:
    """The model's own name: `Qwen3-0.6B` for `Qwen_Qwen3-0.6B`."""
    return source_name.split("_", 1)[-1]


def _files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
