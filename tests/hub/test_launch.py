"""Asking a process: what it says is bounded, its time is too, and nothing of it stays."""

import sys
import time
from pathlib import Path

import psutil
import pytest
from workbench import wait

from hub import launch
from hub.launch import Answer, Plan, SaidTooMuch


def python(script: str) -> Plan:
    return Plan([sys.executable, "-I", "-c", script], {"PATH": "/usr/bin:/bin"}, "weak")


def test_an_answer_is_read_from_both_streams() -> None:
    script = "import sys; print('yes'); print('but', file=sys.stderr); sys.exit(3)"
    assert launch.ask(python(script), 20) == Answer(3, b"yes\n", b"but\n")


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_who_says_too_much_is_ended(stream: str) -> None:
    script = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    with pytest.raises(SaidTooMuch):
        launch.ask(python(script), 60)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["", "os.close(1); os.close(2);"])
def test_who_is_late_is_ended_with_all_its_children(closed: str, tmp_path: Path) -> None:
    # The child is in a session of its own, and holds both pipes open.
    pid = tmp_path / "pid"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"with open({str(pid) + '.new'!r}, 'w') as file: file.write(str(child.pid))\n"
        f"os.rename({str(pid) + '.new'!r}, {str(pid)!r})\n"
        f"{closed}time.sleep(600)"
    )
    for seconds in (2, 4, 8, 16, 32, 64):
        began = time.time()
        with pytest.raises(TimeoutError):
            launch.ask(python(script), seconds)
        # Without a launcher nobody ends a child that is started while its parent is being ended.
        if pid.exists() and pid.stat().st_mtime < began + seconds - 0.5:
            break
        pid.unlink(missing_ok=True)
    number = int(pid.read_text())
    wait(lambda: not psutil.pid_exists(number), "a child is left")
