"""Runs one tool as a child process.

The tools are native code and large scripts. What goes wrong inside one has to end as a step that
failed, with its last words kept, and not as the end of the process that talks to the hub.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread

TAIL = 200  # lines of output that are kept: a Python traceback with the context before it
POLL = 0.5  # seconds between two looks at a file that is growing


class ChildFailed(Exception):
    """A tool that did not exit with 0: its exit code (negative: a signal) and its last lines."""

    def __init__(self, code: int, tail: list[str]) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.tail = tail

    @property
    def ending(self) -> str:
        """How it ended, in words: `exit code 1`, `SIGKILL`."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"


def run(
    command: list[str],
    *,
    folder: Path,
    environment: dict[str, str],
    watch: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run `command` in `folder`, its output going to our stderr; return its last lines.

    `watch` is called every half second while it runs; if it raises, the child is killed.
    Raises ChildFailed.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        # A pipe that nobody empties stops the tool, hence a thread while we wait and watch.
        reader = Thread(target=_copy, args=(process.stdout, tail))
        reader.start()
        try:
            while _running(process):
                watch()
        except BaseException:
            process.kill()
            raise
        finally:
            reader.join()
    if process.returncode:
        raise ChildFailed(process.returncode, list(tail))
    return list(tail)


def _running(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(POLL)
    except subprocess.TimeoutExpired:
        return True
    return False


def _copy(lines: Iterable[str], tail: deque[str]) -> None:
    for line in lines:
        sys.stderr.write(line)
        tail.append(line.rstrip())
    sys.stderr.flush()
