"""What a conversion will take, on the command line."""

from pathlib import Path
from typing import Any

import pytest
from commanding import Slmhub
from furnished import add_artefact, add_model, add_plugin

from hub import artefacts, db, formats, jobs
from hub.asking import Appraisal, Estimate
from hub.commands.forecast import describe
from hub.config import Settings

pytestmark = pytest.mark.usefixtures("hub")
DRY = ("convert", "org/model", "toy", "q8", "q4", "--dry-run")


@pytest.fixture
def asked(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that the plugin toy is asked with."""
    options: list[Any] = []

    def appraise(*given: Any) -> Appraisal:
        options.append(given[4])
        return Appraisal(None, {name: Estimate(4 * 10**8, 10**9, 10**7) for name in given[3]})

    monkeypatch.setattr("hub.asking.appraise", appraise)
    add_plugin(tmp_path / "plugins", settings)
    add_model(settings)
    return options


def test_nothing_is_asked_for(slmhub: Slmhub, settings: Settings, asked: list[Any]) -> None:
    done = slmhub(*DRY, "--group-size", "32")
    assert done.code == 0, done.err
    assert "q8 missing 400.0 MB 1.0 GB 10.0 MB" in " ".join(done.out.split())
    assert "into    hub/org_model-TOY: q8, q4\n" in done.out
    assert "disk    1.3 GB of " in done.out
    assert "memory  1.0 GB of " in done.out
    assert "time    unknown yet" in done.out
    assert asked[0]["group_size"] == 32
    with db.reading(settings.database) as session:
        assert jobs.listing(session)[0] == []


def test_the_same_for_programs(slmhub: Slmhub, asked: list[Any]) -> None:
    done = slmhub(*DRY, "--json")
    assert done.code == 0
    assert [one["variant"] for one in done.json["variants"]] == ["q8", "q4"]
    assert done.json["memory"]["needed"] == 10**9
    assert done.json["refusal"] is None


def test_what_is_there_and_what_is_coming(
    slmhub: Slmhub, settings: Settings, asked: list[Any]
) -> None:
    made = slmhub("convert", "org/model", "toy", "q4", "--json").json
    done = slmhub("convert", "org/model", "toy", "q4", "--dry-run")
    assert f"Job {made['id']} is doing this already." in done.out
    fmt = formats.get(settings, "toy")
    key = artefacts.artefact_key("org/model", made["commit"], fmt, "q8", fmt.validate_options({}))
    add_artefact(settings, made["commit"], key=key, seconds=31.0)
    done = slmhub("convert", "org/model", "toy", "q8", "--dry-run")
    assert "All of it is there already." in done.out
    done = slmhub("convert", "org/model", "toy", "full", "--dry-run")
    assert "time    about 31 s" in done.out


def test_a_refusal_is_the_exit_code(
    slmhub: Slmhub, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.asking.appraise", lambda *_: Appraisal("It is no\x1b[31m toy."))
    done = slmhub(*DRY)
    assert done.code == 1
    assert "q4" in done.out
    assert done.err.startswith("Error: It is no\ufffd[31m toy.\n")
    done = slmhub(*DRY, "--json")
    assert done.code == 1
    assert done.json["refusal"]["kind"] == done.failure["kind"] == "not_supported"
    assert done.failure["hint"]


def test_nonsense_fails_as_the_request_does(slmhub: Slmhub, asked: list[Any]) -> None:
    done = slmhub("convert", "org/model", "toy", "q99", "--dry-run", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.failure["kind"] == "unknown_variant"
    assert slmhub(*DRY, "--wait").code == 2


def test_what_is_to_be_mirrored_first(capsys: pytest.CaptureFixture[str]) -> None:
    variant = {"variant": "q4", "state": "missing", "repo": "hub/r", "seconds": None}
    costs = {"size": 4 * 10**8, "memory": 10**9, "scratch": 0, "rough": True}
    describe(
        {
            "repo": "org/model",
            "mirrored": False,
            "download": 12 * 10**8,
            "variants": [variant | costs],
            "disk": {"needed": 2 * 10**9, "free": 4 * 10**9, "reserved": 10**9},
            "memory": {"needed": 10**9, "allowed": 2 * 10**9},
            "seconds": {"least": 20.0, "most": 60.0},
            "job": None,
        }
    )
    seen = capsys.readouterr().out
    assert "First it has to be mirrored, 1.2 GB: `slmhub mirror org/model`" in seen
    assert "≈ 400.0 MB" in seen
    assert "≥ 1.0 GB" in seen
    assert "2.0 GB of 4.0 GB that are free, less 1.0 GB for other jobs" in seen
    assert "time    20 to 60 s" in seen
