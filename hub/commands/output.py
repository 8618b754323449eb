"""How commands print: tables and sentences for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

Shown = TypeVar("Shown")

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON instead of text.")


def show(value: Shown, json_: bool, people: Callable[[Shown], None]) -> None:
    """Print a value as JSON, or in the way that `people` prints it."""
    if json_:
        print(json.dumps(value, indent=2))
    else:
        people(value)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as a table; columns that end in `_at` are times."""
    drawn = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        drawn.add_row(*(_cell(column, row[column]) for column in columns))
    Console().print(drawn, markup=False)


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if column.endswith("_at") and isinstance(value, int | float):
        return _time(value)
    return str(value)


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"  # no year has these many digits


def plain(text: str) -> str:
    """A text without what would steer a terminal: converters and models have the last word in it.

    Lines and tabs stay, and of a line that was drawn over and over only what stood last.
    """
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(
        "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line) for line in lines
    )


def complain(message: str, hint: str, *, kind: str = "error", json_: bool = False) -> None:
    """Print a failure on standard error: what happened, then what to do."""
    if json_:
        print(json.dumps({"kind": kind, "message": message, "hint": hint}), file=sys.stderr)
        return
    print(f"Error: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)
