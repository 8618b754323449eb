"""The shim by itself: a process, a request, lines on a pipe."""

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from hub.launch import SHIM
from workers import shim

CONVERT = """
import os, subprocess
print("imported", flush=True)
def convert(source, output, variant, options, job):
    print("printed", flush=True)
    os.write(1, b"written to fd 1\\n")
    subprocess.run(["/bin/echo", '{"event": "done"}'], check=True)
    for step in range(1000):
        job.report(step / 1000, "steps")
    if variant == "bad":
        try:
            job.fail("unsupported_model", "why", "what next")
        except Exception:
            pass
    (output / "file").write_text(f"{options['a']} {job.threads} {job.source_name}")
def supports(config, files):
    return None if config.get("good") else f"no: {len(files)} files"
def estimate(config, files, tensors, variant, options):
    if variant == "odd":
        raise KeyError("hidden_size")
    elements = tensors["w"]["shape"][0] * options["a"]
    return {"size": elements + sum(files.values()), "memory": 9, "scratch": len(variant)}
"""
FOLDERS = ("source", "output", "scratch", "earlier")


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "convert.py").write_text(CONVERT)

    def run(**changes: Any) -> tuple[int, list[dict[str, Any]], str]:
        for name in FOLDERS:
            (tmp_path / name).mkdir(exist_ok=True)
        request = {
            "api": 1,
            "action": "convert",
            "plugin": str(plugin),
            **{name: str(tmp_path / name) for name in FOLDERS},
            "variants": ["good"],
            "options": {"a": 1},
            "source_name": "org_model",
            "threads": 2,
            "memory": 1,
            **changes,
        }
        (tmp_path / "request.json").write_text(json.dumps(request))
        ended = subprocess.run(
            [sys.executable, "-I", "-B", str(SHIM), str(tmp_path / "request.json")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return (
            ended.returncode,
            [json.loads(line) for line in ended.stdout.splitlines()],
            (ended.stderr),
        )

    return run


def test_events_alone_are_on_stdout(ask: Any, tmp_path: Path) -> None:
    code, events, log = ask()
    assert code == 0
    assert {event["event"] for event in events[:-2]} == {"progress"}
    assert [event["event"] for event in events[-2:]] == ["artefact", "done"]
    assert events[-2]["variant"] == "good"
    assert events[-2]["check"] is None
    for printed in ("imported", "printed", "written to fd 1", '{"event": "done"}'):
        assert printed in log
    assert (tmp_path / "output" / "good" / "file").read_text() == "1 2 org_model"


def test_progress_is_not_a_flood(ask: Any) -> None:
    _, events, _ = ask()
    assert len(events) < 150


def test_a_refusal_is_not_swallowed(ask: Any) -> None:
    code, events, _ = ask(variants=["bad"])
    assert code == 1
    last = events[-1]
    assert (last["event"], last["kind"]) == ("error", "unsupported_model")
    assert (last["message"], last["hint"]) == ("why", "what next")


def test_an_exception_is_an_event_and_a_traceback(ask: Any) -> None:
    code, events, log = ask(options={})
    assert code == 1
    assert events[-1]["kind"] == "plugin_crashed"
    assert events[-1]["message"] == "KeyError: 'a'"
    assert "Traceback" in log


def test_a_refusal_of_a_model_is_no_failure(ask: Any) -> None:
    code, events, _ = ask(action="appraise", config={}, files={"a": 1, "b": 2}, tensors={})
    assert (code, events) == (0, [{"event": "done", "reason": "no: 2 files"}])


def test_every_variant_is_estimated(ask: Any) -> None:
    asked = {"config": {"good": 1}, "files": {"a": 1, "b": 2}, "options": {"a": 2}}
    tensors = {"w": {"dtype": "BF16", "shape": [5]}}
    code, events, log = ask(
        action="appraise", tensors=tensors, variants=["good", "odd", "x"], **asked
    )
    assert code == 0
    assert events == [
        {
            "event": "done",
            "reason": None,
            "estimates": {
                "good": {"size": 13, "memory": 9, "scratch": 4},
                "x": {"size": 13, "memory": 9, "scratch": 1},
            },
            "estimate_error": "odd: KeyError: 'hidden_size'",
        }
    ]
    assert "Traceback" in log


def test_smoke(ask: Any) -> None:
    _, events, _ = ask(action="smoke", smoke=["json"], tools=[])
    assert events == [{"event": "done", "versions": {}}]
    code, events, _ = ask(action="smoke", smoke=["no_such_module"], tools=[])
    assert code == 1
    assert "no_such_module" in events[-1]["message"]


@pytest.fixture
def job(tmp_path: Path) -> shim.Job:
    request = {
        "scratch": str(tmp_path),
        "earlier": str(tmp_path),
        "source_name": "org_model",
        "threads": 3,
        "memory": 1,
        "options": {},
    }
    return shim.Job(request, None, "good")  # type: ignore[arg-type]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_child_prints_is_the_log(job: shim.Job, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import os, sys\n"
        "os.write(1, 'one\\r50 %\\r\\n\\ncaf\u00e9 '.encode())\n"
        "os.write(2, b'\\xff\\n')\n"
        "print(repr(sys.stdin.read()), end='')\n"
    )
    said = ["one", "50 %", "", "caf\u00e9 \ufffd", "''"]
    assert job.run(python(code)) == said
    assert capsys.readouterr() == ("", "\n".join(said) + "\n")


def test_a_character_in_two_pieces(job: shim.Job) -> None:
    code = (
        "import os, time\n"
        "for byte in 'a\u00e9\\r\\nb'.encode():\n"
        "    os.write(1, bytes([byte])); time.sleep(0.05)\n"
    )
    assert job.run(python(code)) == ["a\u00e9", "b"]


def test_the_last_lines_of_many_are_kept(job: shim.Job) -> None:
    last = job.run(python("for line in range(50_000): print(line)"))
    assert last == [str(line) for line in range(50_000 - shim.KEPT, 50_000)]


def test_the_surroundings_of_a_child(job: shim.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("INHERITED", "yes")
    code = "import json, os; print(json.dumps([os.getcwd(), dict(os.environ)]))"
    folder, seen = json.loads(job.run(python(code), environment={"ADDED": "yes"})[0])
    assert folder == str(job.scratch)
    assert seen["OMP_NUM_THREADS"] == "3"
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HOME"] == folder
    assert (seen["ADDED"], seen["INHERITED"]) == ("yes", "yes")
    assert json.loads(job.run(python(code), folder=Path("/"))[0])[0] == "/"
    code = "import os; print(os.environ['HF_HUB_OFFLINE'])"
    assert job.run(python(code), environment={"HF_HUB_OFFLINE": "2"}) == ["2"]


def test_a_child_that_fails(job: shim.Job) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        job.run(python("print('a'); print('b'); raise SystemExit(3)"))
    assert (raised.value.returncode, raised.value.output) == (3, "a\nb")
    assert str(raised.value) == "exit code 3"
    with pytest.raises(subprocess.CalledProcessError) as raised:
        job.run(python("import os; os.kill(os.getpid(), 9)"))
    assert (raised.value.returncode, raised.value.output) == (-signal.SIGKILL, "")
    assert str(raised.value) == "SIGKILL"


def test_lines_that_are_heard_need_not_be_logged(
    job: shim.Job, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = []

    def hear(line: str) -> bool:
        heard.append(line)
        return line.startswith("done ")

    assert job.run(python("print('done 1'); print('a'); print('done 2')"), heard=hear) == ["a"]
    assert heard == ["done 1", "a", "done 2"]
    assert capsys.readouterr().err == "a\n"


def test_a_line_is_heard_before_the_child_ends(job: shim.Job) -> None:
    answer = job.scratch / "answer"
    code = (
        "import pathlib, time\n"
        "print('question', flush=True)\n"
        f"while not pathlib.Path({str(answer)!r}).exists(): time.sleep(0.01)\n"
    )
    assert job.run(python(code), heard=lambda _line: answer.touch()) == ["question"]


@pytest.mark.parametrize("chatty", [True, False])
def test_a_child_is_watched(chatty: bool, job: shim.Job) -> None:
    """Also one that is never silent."""
    answer = job.scratch / "answer"
    code = (
        "import pathlib, time\n"
        f"while not pathlib.Path({str(answer)!r}).exists():\n"
        f"    time.sleep(0.01); {chatty} and print('x', flush=True)\n"
    )
    job.run(python(code), watch=answer.touch)


@pytest.mark.parametrize("by", ["watch", "heard"])
def test_who_raises_ends_the_child(by: str, job: shim.Job) -> None:
    """A refusal too, which is no Exception."""
    pids: list[int] = []

    def hear(line: str) -> None:
        pids.append(int(line))
        if by == "heard":
            job.fail("late", "why")

    def watch() -> None:
        if pids:
            job.fail("late", "why")

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    with pytest.raises(shim.Refusal):
        job.run(python(code), heard=hear, watch=watch)
    assert not psutil.pid_exists(pids[0])


def test_the_job_of_the_plugins_own_tests(tmp_path: Path) -> None:
    found = runpy.run_path(str(SHIM.parents[1] / "samples" / "job.py"))
    job = found["Job"](tmp_path / "scratch", "good")
    job.report(0.5, "half")
    assert job.run(python("print('ran')")) == ["ran"]
    with pytest.raises(found["Failure"]) as raised:
        job.fail("kind", "why", "what next")
    assert (raised.value.kind, raised.value.message) == ("kind", "why")
    assert (job.reports, job.ran) == ([(0.5, "half")], [" ".join(python("print('ran')"))])
