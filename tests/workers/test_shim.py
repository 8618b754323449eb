"""The shim by itself: a process, a request, lines on a pipe."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.launch import SHIM

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
            timeout=30,
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
