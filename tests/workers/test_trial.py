"""The trial of a plugin: each step says what it saw, and what is wrong is a row, not the end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub import formats
from hub.asking import Estimate
from hub.config import ROOT, Settings
from workers import environments, trial
from workers.trial import Step

MANIFEST = """
api = 1
name = "toy"
version = "1"
title = "Toy"
runtime = "none"
summary = "A toy"
repo = "{source}-Toy"
smoke = ["json"]
[[variants]]
name = "good"
bits = 8
class = "medium"
note = "Works"
[[variants]]
name = "bad"
bits = 8
class = "medium"
note = "Does not"
[options.fill]
type = "integer"
default = 100000
help = "Bytes to write"
"""
CONVERT = """
def convert(source, output, variant, options, job):
    print("what the converter says")
    if variant == "bad":
        job.fail("no_luck", "It did not work.", "Try another day.")
    (output / "file").write_bytes(bytes(options["fill"]))

def check(artefact, job):
    return {"runtime": "toy 1", "text": "it runs"}
"""


def estimate(size: float, memory: float = 1e9) -> str:
    said = {"size": size, "memory": memory, "scratch": 0}
    return f"\ndef estimate(config, files, tensors, variant, options):\n    return {said}\n"


@pytest.fixture
def hub(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"plugins": [tmp_path / "plugins"]})


def toy(hub: Settings, convert: str = CONVERT, manifest: str = MANIFEST) -> formats.Format:
    folder = hub.plugins[0] / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.toml").write_text(manifest)
    (folder / "requirements.txt").write_text("")
    (folder / "convert.py").write_text(convert)
    return formats.formats(hub)["toy"]


def steps(hub: Settings, fmt: formats.Format, **how: Any) -> dict[str, Step]:
    return {step.step: step for step in trial.trial(hub, fmt, lambda _line: None, **how)}


@pytest.mark.slow
def test_every_step_says_what_it_saw(hub: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    seen = steps(hub, toy(hub, CONVERT + estimate(100_000)))
    assert {name: step.result for name, step in seen.items()} == {
        "manifest": "ok", "environment": "ok", "imports": "ok", "own test": "warning",
        "supports": "ok", "estimate": "ok", "good": "ok", "bad": "failed",
    }  # fmt: skip
    assert seen["manifest"].seen == "toy 1, 2 variants"
    assert seen["imports"].seen == "all modules import"
    assert seen["own test"].seen == "it has no test_convert.py"
    assert seen["good"].seen.startswith("100.0 kB (estimate +0.0%)")
    assert seen["good"].seen.endswith("'it runs'")
    assert seen["bad"].seen == "It did not work. Try another day."
    assert "what the converter says" in capfd.readouterr().err  # the log of what failed
    assert list(hub.scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "result", "said"),
    [
        ("", "warning", "it gives none"),
        (estimate(90_000), "ok", "for 2 variants"),
        ("\ndef estimate(*given): return 1 / 0\n", "warning", "it gives none"),
        (
            "\ndef estimate(config, files, tensors, variant, options):\n"
            "    return {'size': 1, 'memory': 1, 'scratch': 1} if variant == 'bad' else None\n",
            "warning",
            "it gives none for good",
        ),
    ],
)
def test_estimates_are_asked_for_and_held_against_the_truth(
    hub: Settings, more: str, result: str, said: str
) -> None:
    seen = steps(hub, toy(hub, CONVERT + more))
    assert seen["estimate"].result == result
    assert said in seen["estimate"].seen
    assert seen["good"].ok  # a wrong estimate is a warning
    if "90000" in more:
        assert seen["good"].result == "warning"
        assert "(estimate -10.0%)" in seen["good"].seen


@pytest.mark.parametrize(
    ("expected", "memory", "doubt"),
    [
        (None, 1, None),
        (Estimate(1_000_000, 100, 0), 100, None),
        (Estimate(1_029_999, 100, 0), 109, None),
        (Estimate(970_001, 100, 0), 0, None),
        (Estimate(1_030_001, 100, 0), 100, "more than 3%"),
        (Estimate(969_000, 100, 0), 100, "more than 3%"),
        (Estimate(1_000_000, 100, 0), 111, "more memory"),
    ],
)
def test_an_estimate_that_is_off_is_a_doubt(
    expected: Estimate | None, memory: int, doubt: str | None
) -> None:
    if doubt is None:
        assert "1.0 MB" in trial._compared(1_000_000, memory, expected, "'x'")
        return
    with pytest.raises(trial._Doubt, match=doubt):
        trial._compared(1_000_000, memory, expected, "'x'")


def test_a_few_bytes_more_or_less_are_no_doubt() -> None:
    assert trial._compared(34, 0, Estimate(20, 100, 0), "'x'") == "34 bytes (estimate -41.2%): 'x'"


def test_a_broken_manifest_is_the_first_and_only_step(hub: Settings) -> None:
    seen = steps(hub, toy(hub, manifest=MANIFEST.replace("api = 1", "api = 0")))
    assert list(seen) == ["manifest"]
    assert seen["manifest"].result == "failed"
    assert seen["manifest"].seen == (
        "api: 0 is not spoken here; this hub speaks 1. Take a version of the plugin that speaks it."
    )


@pytest.mark.slow
def test_modules_that_do_not_import_end_the_trial(hub: Settings) -> None:
    fmt = toy(hub)
    environments.install(hub, fmt, lambda _line: None)
    again = toy(hub, manifest=MANIFEST.replace('["json"]', '["no_such_module"]'))
    seen = steps(hub, again)  # the pins are the same, so the environment is ready
    assert list(seen)[-1] == "imports"
    assert "no_such_module" in seen["imports"].seen


@pytest.mark.slow
def test_a_model_that_is_not_taken_is_not_converted(hub: Settings) -> None:
    fmt = toy(hub, CONVERT + "\ndef supports(config, files): return 'Only toys.'\n")
    seen = steps(hub, fmt)
    assert (seen["supports"].result, seen["supports"].seen) == ("failed", "Only toys.")
    assert list(seen)[-1] == "supports"


@pytest.mark.slow
def test_the_table_and_the_exit_code_say_whether_it_passed(hub: Settings) -> None:
    toy(hub, CONVERT + estimate(100_000))
    argv = [sys.executable, "-m", "workers.plugins", "check", "toy"]
    env = os.environ | {
        "HUB_DATA": str(hub.data), "HUB_PLUGINS": str(hub.plugins[0]), "COLUMNS": "200",
    }  # fmt: skip
    people = subprocess.run(argv, env=env, capture_output=True, text=True, cwd=ROOT, check=False)
    assert people.returncode == 1
    assert people.stdout.split()[:4] == ["step", "result", "seconds", "seen"]
    assert "failed" in people.stdout
    rows = subprocess.run(
        [*argv, "--json"], env=env, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert [row["ok"] for row in json.loads(rows.stdout)] == [True] * 7 + [False]


@pytest.mark.slow
@pytest.mark.plugin
def test_the_plugins_own_test_runs_with_pytest_beside_its_environment(hub: Settings) -> None:
    fmt = toy(hub)
    test = fmt.folder / trial.OWN_TEST
    test.write_text("import convert\n\ndef test_it(): assert convert.check(None, None)\n")
    seen = steps(hub, fmt, test_only=True)
    assert list(seen) == ["manifest", "environment", "imports", "own test"]
    assert seen["own test"].result == "ok"
    assert seen["own test"].seen.startswith("1 passed")
    test.write_text("def test_it(): raise ValueError\n")
    seen = steps(hub, fmt, test_only=True)
    assert seen["own test"].result == "failed"
    assert "1 failed" in seen["own test"].seen
    assert not list(fmt.folder.rglob("*.pyc"))
