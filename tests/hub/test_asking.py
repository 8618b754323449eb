"""What a plugin answers when it is asked whether it can convert a model."""

from pathlib import Path

import pytest

from hub import asking, formats, launch
from hub.asking import Estimate
from hub.config import Settings
from hub.errors import Unprocessable
from hub.formats import Format
from hub.launch import Answer
from hub.outline import Outline
from hub.safetensors import Tensor

MANIFEST = """
api = 1
name = "toy"
title = "Toy"
runtime = "none"
summary = "A toy"
repo = "{source}-Toy"
command = ["./answer.sh"]
appraises = true
[[variants]]
name = "4bit"
bits = 4.5
class = "low"
note = "Default"
"""


def toy(parent: Path, script: str) -> Format:
    """A plugin that is a script of the shell."""
    folder = parent / "toy"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "answer.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "answer.sh").chmod(0o755)
    fmt = formats.read(folder)
    assert fmt.problem is None
    return fmt


def answering(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> str | None:
    plan = launch.Plan(["/bin/true"], {}, "strict")
    monkeypatch.setattr(launch, "plan", lambda *_: plan)
    monkeypatch.setattr(launch, "ask", lambda *_: answer)
    return asking.supports(settings, toy(tmp_path, ""), {}, ["config.json"])


def test_a_refusal_that_quotes_a_model_can_be_shown(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = rb'{"event": "done", "reason": "unknown: \ud800\u0000\u001b[31m\nx"}'
    reason = answering(settings, tmp_path, monkeypatch, Answer(0, said, b""))
    assert reason == "unknown: ???[31m\nx"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(7, b"", b""), "plugin_crashed", "ended with code 7"),
        (Answer(1, b'{"event": "error", "kind": "k", "message": "m"}', b""), "k", "model: m"),
    ],
)
def test_a_failure_is_told_in_its_words(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    kind: str,
    words: str,
) -> None:
    with pytest.raises(Unprocessable, match=words) as raised:
        answering(settings, tmp_path, monkeypatch, answer)
    assert raised.value.kind == kind
    assert "plugins check toy" in raised.value.hint


MODEL = Outline(
    {"hidden_size": 4},
    {"config.json": 2, "model.safetensors": 900},
    {"w": Tensor("BF16", (10, 4), 0, 80)},
    parameters=80,
)


@pytest.mark.parametrize(
    ("said", "estimate"),
    [
        (b'{"size": 7, "memory": 8.5, "scratch": 0}', Estimate(7, 8, 0)),
        (b'{"size": 7, "memory": 8}', None),
        (b'{"size": -1, "memory": 8, "scratch": 0}', None),
        (b'{"size": 1e300, "memory": 8, "scratch": 0}', None),
        (b'{"size": "7", "memory": 8, "scratch": 0}', None),
        (b"[7, 8, 0]", None),
        (b"null", None),
    ],
)
def test_an_estimate_that_is_none_is_replaced_by_a_rough_one(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: bytes,
    estimate: Estimate | None,
) -> None:
    line = b'{"event": "done", "reason": null, "estimates": {"4bit": %s}}' % said
    monkeypatch.setattr(launch, "plan", lambda *_: launch.Plan(["/bin/true"], {}, "strict"))
    monkeypatch.setattr(launch, "ask", lambda *_: Answer(0, line, b""))
    found = asking.appraise(settings, toy(tmp_path, ""), MODEL, ["4bit"])
    roughly = Estimate(45, asking.BASE_MEMORY + 240, 900, rough=True)
    assert found == asking.Appraisal(None, {"4bit": estimate or roughly})


def test_a_plugin_that_cannot_estimate_is_logged(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = b'{"event": "done", "reason": null, "estimates": {}, "estimate_error": "4bit: why"}'
    monkeypatch.setattr(launch, "plan", lambda *_: launch.Plan(["/bin/true"], {}, "strict"))
    monkeypatch.setattr(launch, "ask", lambda *_: Answer(0, line, b""))
    assert asking.appraise(settings, toy(tmp_path, ""), MODEL, ["4bit"]).estimates["4bit"].rough
    assert "toy could not estimate: 4bit: why" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("level", ["strict", "weak"])
def test_memory_output_and_time_are_bounded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setattr(launch, "level", lambda _settings: level)
    monkeypatch.setattr(launch, "APPRAISE_MEMORY", 64 << 20)
    done = """echo '{"event": "done", "reason": "no"}'"""
    hog = f"x=$(head -c %d /dev/zero | tr '\\0' x)\n{done}"
    assert asking.supports(settings, toy(tmp_path / "a", hog % 1_000_000), {}, []) == "no"
    with pytest.raises(Unprocessable, match="ended with code"):
        asking.supports(settings, toy(tmp_path / "b", hog % 200_000_000), {}, [])
    with pytest.raises(Unprocessable, match="more than 1,048,576 bytes"):
        asking.supports(settings, toy(tmp_path / "c", "yes"), {}, [])
    monkeypatch.setattr(asking, "SECONDS", 2)
    slow = toy(tmp_path / "d", f"setsid sleep 100 &\nsleep 100\n{done}")
    said = asking.supports(settings, slow, {}, [])
    assert said == "Toy did not answer within 2 s whether it can."
