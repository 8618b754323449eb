"""The most memory that a tree of processes takes, seen from outside."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import psutil

from workers.watch import own_memory

LOOK = 0.1  # seconds between two looks


class Peak:
    """The most bytes that were seen."""

    bytes = 0


@contextmanager
def watched(processes: Callable[[], Iterable[psutil.Process]]) -> Iterator[Peak]:
    """Look at the processes until the block ends: their shares of anonymous and shared memory."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            peak.bytes = max(peak.bytes, sum(own_memory(process.pid) for process in processes()))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all that descends from it; empty once it has ended."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def converters(root: psutil.Process) -> list[psutil.Process]:
    """What runs behind the walls of a hub: the trees below its launchers."""
    found: dict[int, psutil.Process] = {}
    for process in tree(root):
        try:
            if any(part.endswith("workers/sandbox.py") for part in process.cmdline()):
                found |= {one.pid: one for one in tree(process)}
        except psutil.Error:
            continue
    return list(found.values())
