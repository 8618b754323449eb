"""Commands that talk to a hub: what they print, and how they fail."""

import json
import threading
from pathlib import Path

import pytest
from commanding import Slmhub
from fakehub import tiny_model
from furnished import add_artefact, add_job, add_log, add_model, add_plugin

from hub import db, jobs
from hub.config import Settings
from hub.models import Job, JobState

pytestmark = pytest.mark.usefixtures("hub")


@pytest.fixture
def model(settings: Settings, tmp_path: Path) -> str:
    """A model with an artefact q8, and the toy plugin, on the settings that the hub runs with."""
    add_plugin(tmp_path / "plugins", settings)
    commit = add_model(settings)
    add_artefact(settings, commit)
    return commit


def change(settings: Settings, number: int, **columns: object) -> None:
    with db.writing(settings.database) as session:
        row = jobs.get(session, number)
        for name, value in columns.items():
            setattr(row, name, value)


def test_mirror_from_a_folder(slmhub: Slmhub, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in tiny_model().items():
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    made = slmhub("mirror", "org/new@v1", "--from", str(folder), "--json")
    assert made.code == 0
    assert (made.json["state"], made.json["repo"], made.json["revision"]) == (
        "queued", "org/new", "v1",
    )  # fmt: skip
    again = slmhub("mirror", "org/new@v1", "--from", str(folder))
    assert again.out.startswith(f"job {made.json['id']}: mirror org/new: queued")


@pytest.mark.parametrize("name", ["no-org", "../..", "org/../x", "org/a%2eb", "api/model"])
def test_names_that_are_none(slmhub: Slmhub, name: str) -> None:
    done = slmhub("mirror", name, "--json")
    assert (done.code, done.out) == (1, "")
    assert done.failure["hint"]


def test_convert(slmhub: Slmhub, model: str) -> None:
    made = slmhub("convert", "org/model", "toy", "q4", "--option", "group_size=32", "--json")
    assert made.code == 0, made.err
    assert made.json["options"]["group_size"] == 32
    there = slmhub("convert", "org/model@main", "toy", "q4", "--option", "group_size=32")
    assert f"job {made.json['id']}: convert org/model: queued" in there.out


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["org/model", "tin", "q4"], ["echo", "gguf", "toy"]),
        (["org/model", "toy", "q3"], ["full", "q8", "q4"]),
        (["org/model", "toy", "q4", "--option", "size=1"], ["group_size", "careful", "ratio"]),
        (["org/model", "toy", "q4", "--option", "group_size=7"], ["32", "64"]),
        (["org/model", "toy", "q4", "--option", "ratio=7"], ["0", "1"]),
        (["org/model", "toy", "q4", "--option", "careful"], ["NAME=VALUE"]),
        (["org/nothing", "toy", "q4"], []),
        (["org/model@nowhere", "toy", "q4"], []),
    ],
)
def test_what_is_unknown_names_what_is_allowed(
    slmhub: Slmhub, model: str, arguments: list[str], allowed: list[str]
) -> None:
    done = slmhub("convert", *arguments, "--json")
    assert (done.code, done.out) == (1, "")
    words = done.failure["message"] + done.failure["hint"]
    assert all(word in words for word in allowed), words
    people = slmhub("convert", *arguments)
    assert people.code == 1
    assert people.err.startswith(f"Error: {done.failure['message']}\n")


def test_wait_for_a_job_that_succeeds(
    slmhub: Slmhub, settings: Settings, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    def finish() -> None:
        def there() -> bool:
            with db.reading(settings.database) as session:
                return bool(jobs.listing(session, limit=1)[0])

        while not there():
            end.wait(0.02)
        change(settings, 1, state=JobState.DONE, progress=1.0)

    end = threading.Event()
    worker = threading.Thread(target=finish)
    worker.start()
    done = slmhub("convert", "org/model", "toy", "q4", "--wait", "--json")
    worker.join()
    assert done.code == 0
    assert done.json["state"] == "done"


def test_a_failed_job_is_an_exit_code_and_a_cause(
    slmhub: Slmhub, settings: Settings, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    def fail(_settings: Settings, number: int) -> bool:
        change(
            settings,
            number,
            state=JobState.FAILED,
            error_kind="plugin_crashed",
            error_message="The plugin ended with signal 11.",
            error_hint="See the log.",
        )
        return True

    monkeypatch.setattr(jobs, "notify", fail)
    done = slmhub("convert", "org/model", "toy", "q4", "--wait", "--json")
    assert done.code == 1
    assert done.json["state"] == "failed"
    assert done.failure == done.json["error"]
    people = slmhub("jobs", "show", str(done.json["id"]))
    assert (people.code, people.out.splitlines()[1:]) == (
        0, ["  The plugin ended with signal 11.", "  See the log."],
    )  # fmt: skip


def test_jobs_are_listed_shown_cancelled_and_read(slmhub: Slmhub, settings: Settings) -> None:
    rows = [add_job(settings) for _ in range(60)]
    add_log(settings, rows[0], "one line\n[bold]markup[/bold] stays\n")
    numbers = [row["id"] for row in slmhub("jobs", "list", "--limit", "55", "--json").json]
    assert numbers == [row.id for row in reversed(rows)][:55]
    assert "org/model" in slmhub("jobs", "list").out
    assert slmhub("jobs", "list", "--state", "done", "--json").json == []
    number = str(rows[0].id)
    assert slmhub("jobs", "show", number, "--json").json["id"] == rows[0].id
    assert slmhub("jobs", "log", number).out == "one line\n[bold]markup[/bold] stays\n"
    assert slmhub("jobs", "log", number, "--json").json["log"].startswith("one line")
    assert slmhub("jobs", "cancel", number, "--json").json["state"] == "cancelled"
    assert ": cancelled" in slmhub("jobs", "cancel", str(rows[1].id)).out


@pytest.mark.parametrize("command", ["show", "cancel", "log"])
def test_a_job_that_is_not_there(slmhub: Slmhub, command: str) -> None:
    done = slmhub("jobs", command, "77", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.failure["kind"] == "job_not_found"


def test_a_state_that_is_none_names_those_that_are(slmhub: Slmhub) -> None:
    done = slmhub("jobs", "list", "--state", "asleep", "--json")
    assert (done.code, done.failure["kind"]) == (2, "usage")
    assert all(state in done.failure["message"] for state in ("active", *map(str, JobState)))
    assert slmhub("jobs", "list", "--state", "active", "--json").json == []


def test_no_hub_answers(slmhub: Slmhub) -> None:
    slmhub.set(HUB_URL="http://127.0.0.1:1")
    for command in (["jobs", "list"], ["mirror", "org/model"], ["jobs", "show", "1"]):
        done = slmhub(*command, "--json")
        assert (done.code, done.failure["kind"]) == (1, "no_hub")
        assert "http://127.0.0.1:1" in done.failure["message"]
        assert "slmhub up" in done.failure["hint"]
    assert json.loads(slmhub("jobs", "list", "--json").err)


def test_the_job_row_is_the_only_thing_made(slmhub: Slmhub, settings: Settings, model: str) -> None:
    for _ in range(2):
        slmhub("convert", "org/model", "toy", "q4")
    with db.reading(settings.database) as session:
        assert session.get(Job, 2) is None
