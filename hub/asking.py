"""Asking a plugin whether it can convert a model: its own `supports`, in its own sandbox."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub import formats, launch
from hub.config import Settings
from hub.errors import Unprocessable
from hub.formats import Format

SECONDS = 10


def supports(
    settings: Settings, fmt: Format, config: Mapping[str, Any], files: list[str]
) -> str | None:
    """One sentence why the plugin cannot convert a repo with this config and these files, or None.

    What needs no code is checked first; then the plugin's own `supports` is asked, in its own
    environment and sandbox, with ten seconds to answer.
    """
    lacking = fmt.lacks(files)
    if lacking:
        return lacking
    if fmt.command is None and not _defines(fmt.folder / "convert.py", "supports"):
        return None
    with tempfile.TemporaryDirectory(prefix="slmhub-") as folder:
        request = launch.Request(
            action="supports", name=fmt.name, config=dict(config), files=list(files)
        )
        try:
            place = formats.environment(settings, fmt)
            plan = launch.plan(settings, fmt, place, request, Path(folder))
        except RecursionError:
            return "The model's config.json is nested too deeply."
        try:
            answer = launch.ask(plan, SECONDS)
        except TimeoutError:
            return f"{fmt.title} did not answer within {SECONDS} s whether it can."
        except launch.SaidTooMuch:
            raise _failed(fmt, f"it said more than {launch.ANSWER:,} bytes", {}) from None
    last = launch.last_event(answer.output)
    if last.get("event") == "done" and answer.code == 0:
        reason = last.get("reason")
        return _printable(reason) if reason else None
    said = last.get("message") or f"it ended with code {answer.code}"
    raise _failed(fmt, said, last)


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


def _defines(module: Path, function: str) -> bool:
    """Whether a module has a top-level function, by its text: no process is started for nothing."""
    return f"\ndef {function}(" in "\n" + module.read_text("utf-8", "replace")
