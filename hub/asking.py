"""Asking a plugin about a model: whether it can convert it, and what each variant would cost.

The plugin's own `supports` and `estimate` answer, in its own environment and sandbox, from the
configuration, the file names and sizes, and the shapes of the tensors: no weights are read.
"""

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub import formats, launch
from hub.config import Settings
from hub.errors import Unprocessable
from hub.formats import Format
from hub.launch import Answer
from hub.outline import Outline
from hub.safetensors import missing_part

log = logging.getLogger(__name__)

SECONDS = 10
BASE_MEMORY = 256 * 1024**2
"""Bytes that every converter takes, before it has read anything."""


@dataclass(frozen=True)
class Estimate:
    """What a variant will cost, in bytes: its files, the most memory, the most scratch space.

    A `rough` one is the hub's own, from the bits of the variant: its memory is a lower bound.
    """

    size: int
    memory: int
    scratch: int
    rough: bool = False


@dataclass(frozen=True)
class Appraisal:
    """What a plugin says of a model: the `reason` why not, else an estimate of each variant."""

    reason: str | None = None
    estimates: Mapping[str, Estimate] = field(default_factory=dict)


def supports(
    settings: Settings, fmt: Format, config: Mapping[str, Any], files: Sequence[str]
) -> str | None:
    """One sentence why the plugin cannot convert a model with this config and files, or None."""
    return appraise(settings, fmt, Outline(config, dict.fromkeys(files, 0))).reason


def appraise(
    settings: Settings,
    fmt: Format,
    model: Outline,
    variants: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Appraisal:
    """Ask a plugin about a model, and what these variants of it would cost.

    What needs no code is checked first; then the plugin is asked, with ten seconds to answer.
    """
    reason = fmt.lacks(list(model.files)) or _incomplete(model.files)
    if reason:
        return Appraisal(reason)
    said: Mapping[str, Any] = {}
    if _answers(fmt):
        try:
            said = _ask(settings, fmt, model, variants, options or {})
        except TimeoutError:
            reason = f"{fmt.title} did not answer within {SECONDS} s whether it can."
            return Appraisal(reason)
        except RecursionError:
            return Appraisal("The model's config.json is nested too deeply.")
        if said.get("reason"):
            return Appraisal(_printable(said["reason"]))
    estimates = said.get("estimates")
    if said.get("estimate_error"):
        log.warning("%s could not estimate: %s", fmt.name, _printable(said["estimate_error"]))
    told = estimates if isinstance(estimates, dict) else {}
    return Appraisal(
        None, {name: _estimate(told.get(name)) or rough(fmt, model, name) for name in variants}
    )


def rough(fmt: Format, model: Outline, variant: str) -> Estimate:
    """The hub's own estimate: size by the variant's bits, the largest tensor in full precision."""
    size = int(model.parameters * fmt.variant(variant).bits / 8)
    # Every converter holds the largest tensor in full precision, and half of it once more.
    return Estimate(size, BASE_MEMORY + 6 * model.largest, model.weights, rough=True)


def _ask(
    settings: Settings,
    fmt: Format,
    model: Outline,
    variants: Sequence[str],
    options: Mapping[str, Any],
) -> Mapping[str, Any]:
    """The event `done` of a plugin that was asked; TimeoutError, RecursionError, Unprocessable."""
    tensors = model.described() if variants else {}
    request = launch.Request(
        action="appraise",
        name=fmt.name,
        config=dict(model.config),
        files=dict(model.files),
        tensors=tensors,
        variants=list(variants) if tensors else [],
        options=dict(options),
    )
    with tempfile.TemporaryDirectory(prefix="slmhub-") as folder:
        place = formats.environment(settings, fmt)
        plan = launch.plan(settings, fmt, place, request, Path(folder))
        try:
            answer = launch.ask(plan, SECONDS)
        except launch.SaidTooMuch:
            raise _failed(fmt, f"it said more than {launch.ANSWER:,} bytes", {}) from None
    return _done(fmt, answer)


def _done(fmt: Format, answer: Answer) -> Mapping[str, Any]:
    last = launch.last_event(answer.output)
    if last.get("event") == "done" and answer.code == 0:
        return last
    said = last.get("message") or f"it ended with code {answer.code}"
    raise _failed(fmt, said, last)


def _estimate(said: object) -> Estimate | None:
    """A plugin's estimate, if it is one."""
    if not isinstance(said, dict):
        return None
    numbers = [said.get(key) for key in ("size", "memory", "scratch")]
    found = [int(one) for one in numbers if isinstance(one, int | float) and 0 <= one < 1 << 60]
    return Estimate(found[0], found[1], found[2]) if len(found) == len(numbers) else None


def _incomplete(files: Iterable[str]) -> str | None:
    part = missing_part(files)
    return f"A part of the weights is missing: {part}." if part else None


def _answers(fmt: Format) -> bool:
    """Whether the plugin has anything to say, by its text: no process is started for nothing."""
    if fmt.command is not None:
        return fmt.appraises
    text = "\n" + (fmt.folder / "convert.py").read_text("utf-8", "replace")
    return "\ndef supports(" in text or "\ndef estimate(" in text


def _failed(fmt: Format, said: object, last: Mapping[str, Any]) -> Unprocessable:
    """The error of a plugin that gave no answer; `last` is the last event that it sent."""
    return Unprocessable(
        _printable(last.get("kind") or "plugin_crashed"),
        f"{fmt.title} failed while asked whether it supports this model: {_printable(said)}",
        _printable(last.get("hint") or f"See `slmhub plugins check {fmt.name}`."),
    )


def _printable(said: object) -> str:
    """What a plugin said, for people. It quotes models, whose texts may be half a character."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(said)[:1000])
