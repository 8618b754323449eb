"""Progress on a terminal: a bar for people, plain lines for logs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Report(Protocol):
    """Takes how much is done, 0 to 1 or None where nobody knows, and what is going on."""

    def __call__(self, done: float | None, message: str) -> None: ...


@contextmanager
def bar(title: str) -> Iterator[Report]:
    """Show the progress of one piece of work on standard error until the block ends."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title)
        return
    columns = (
        # No markup: what is shown comes from tools, and may have brackets.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def report(done: float | None, message: str) -> None:
            # Without a total the bar pulses: something goes on, nobody knows how long.
            total = None if done is None else 1.0
            progress.update(task, total=total, completed=done or 0.0, note=message[:100])

        yield report


def _lines(title: str) -> Report:
    """A line at every tenth of the way, and whenever the kind of work changes."""
    shown: tuple[int, str] | None = None

    def report(done: float | None, message: str) -> None:
        nonlocal shown
        # The figures in a message change all the time; its first word says what is going on.
        now = (int((done or 0) * 10), message.partition(" ")[0])
        if now != shown:
            shown = now
            share = "" if done is None else f"{done:4.0%} "
            print(f"{title}: {share}{message}", file=sys.stderr, flush=True)

    return report
