"""Asking a process: what it says is bounded, its time is too, and nothing of it stays."""

import sys
from pathlib import Path

import psutil
import pytest

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
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        f"{closed}time.sleep(600)"
    )
    with pytest.raises(TimeoutError):
        launch.ask(python(script), 2)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
