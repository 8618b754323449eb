"""What the check of an artefact saw: whether it was run, and what to tell people of it."""

from collections.abc import Mapping
from typing import Any, Literal

State = Literal["passed", "failed", "not_run", "none"]
LIMIT = 300
"""Characters of what a plugin says that are shown in a line."""


def state(result: Mapping[str, Any]) -> State:
    """`not_run` if the artefact cannot be run on this machine, `none` without a check."""
    if not result:
        return "none"
    if result.get("ran") is False:
        return "not_run"
    return "failed" if result.get("ok", True) is False else "passed"


def line(result: Mapping[str, Any]) -> str:
    """The result in a few words; they come from a plugin, and may hold anything."""
    match state(result):
        case "none":
            return "not checked"
        case "failed":
            return "failed"
        case "not_run":
            note = " ".join(str(result.get("note") or "").split())[:LIMIT]
            return f"not run here: {note}" if note else "not run here"
        case _:
            return _passed(result)


def _passed(result: Mapping[str, Any]) -> str:
    words = []
    if isinstance(tokens := result.get("tokens"), int):
        words.append(f"generated {tokens} tokens")
    if isinstance(runtime := result.get("runtime"), str):
        words.append(f"in {' '.join(runtime.split())[:LIMIT]}")
    return f"passed ({' '.join(words)})" if words else "passed"
