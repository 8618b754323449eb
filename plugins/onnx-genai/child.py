"""Runs one tool as a child process.

The tools are native code and large scripts. What goes wrong inside one has to end as a step that
failed, with its last words kept, and not as the end of the process that talks to the hub.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

TAIL = 200  # lines of output that are kept: a Python traceback with the context before it


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
    heard: Callable[[str], None] = lambda _line: None,
) -> list[str]:
    """Run `command` in `folder`, its output going to our stderr; return its last lines.

    `heard` gets each line as it comes. Raises ChildFailed.
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
        assert process.stdout is not None
        try:
            for line in process.stdout:
                sys.stderr.write(line)
                tail.append(line.rstrip())
                heard(tail[-1])
        except BaseException:
            process.kill()
            raise
    sys.stderr.flush()
    if process.returncode:
        raise ChildFailed(process.returncode, list(tail))
    return list(tail)
