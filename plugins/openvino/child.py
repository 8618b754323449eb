"""Runs one step as a child process.

A step imports hundreds of megabytes of tools and holds a model. As a process of its own it gives
all of that back when it ends, and what goes wrong in native code ends the step and not the process
that talks to the hub.

A child tells its progress on its standard output, by lines that `say` writes; all else that it
prints is its log.
"""

import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

MARK = "\x1e"  # begins a line that is meant for the parent: no log has it
TAIL = 60  # lines of the log that are kept


class ChildFailed(Exception):
    """A child that did not exit with 0: its exit code (negative: a signal) and its last lines."""

    def __init__(self, code: int, tail: list[str]) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.tail = tail

    @property
    def ending(self) -> str:
        """How it ended, in words: `exit code 1`, `SIGKILL`."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"


def say(**values: Any) -> None:
    """Tell the parent something; called in the child."""
    print(f"\n{MARK}{json.dumps(values)}", flush=True)


def run(
    command: list[str], environment: dict[str, str], heard: Callable[[dict[str, Any]], None]
) -> None:
    """Run `command`; `heard` gets what it says, our stderr the rest. Raises ChildFailed."""
    tail: deque[str] = deque(maxlen=TAIL)
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        if process.stdout is None:
            raise ValueError("no pipe")
        try:
            for line in process.stdout:
                if line.startswith(MARK):
                    heard(json.loads(line[len(MARK) :]))
                elif line.strip():
                    sys.stderr.write(line)
                    tail.append(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ChildFailed(process.returncode, list(tail))
