"""Conversions from request to artefact, with the echo plugin in its own environment and sandbox."""

import json
import stat
from pathlib import Path

import pytest
from published import publish

from hub import db, formats, joblog, jobs, repos, requests
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import NotFound, Unprocessable
from hub.formats import Format
from hub.models import Job
from workers import convert, tasks

CONFIG = json.dumps({"model_type": "llama", "hidden_size": 8}).encode()
FILES = {
    "config.json": CONFIG,
    "model.safetensors": b"w" * 64,
    "modeling_evil.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "sub/tokenizer.json": b"{}",
    "LICENSE": b"free",
}


@pytest.fixture
def hub(settings: Settings, echo: tuple[Settings, Format]) -> Settings:
    """A hub with a mirrored model and the echo plugin installed."""
    settings.environments.symlink_to(echo[0].environments)
    publish(settings, "org/model", FILES, facts={"parameters": 100, "license": "mit"})
    return settings.model_copy(
        update={"memory_limit": 1 << 30, "heartbeat": 0.4, "job_timeout": 60}
    )


def run(settings: Settings, *variants: str, **options: object) -> Job:
    job = requests.request_conversion(settings, "org/model", "main", "echo", variants, options)
    tasks.run(settings, job.id or 0, "w")
    with db.reading(settings.database) as session:
        return jobs.get(session, job.id or 0)


def test_the_whole_way(hub: Settings) -> None:
    found = run(hub, "plain", "loud", say="a word on stdout")
    assert (found.state, found.error_message) == ("done", None)
    with db.reading(hub.database) as session:
        shown = jobs.describe(session, hub, found)
        assert [one["variant"] for one in shown["artefacts"]] == ["plain", "loud"]
        repo = repos.find(session, "hub/org_model-Echo")
        stored = {
            file.path: file.sha256
            for file in repos.files(session, repos.resolve(session, repo, "main"))
        }
        rows = jobs.artefacts(session, found)
    assert set(stored) == {
        "LICENSE",
        "README.md",
        "org_model-loud.txt",
        "org_model-plain.txt",
    }
    store = BlobStore(hub.blobs)
    with store.open(stored["org_model-loud.txt"]) as file:
        assert file.read() == b"ORG_MODEL IS A LLAMA\n"
    with store.open(stored["README.md"]) as file:
        card = file.read().decode()
    assert "base_model: org/model" in card
    assert "passed (in echo)" in card
    assert "curl -L " in card
    assert rows[0].check_result["text"] == "org_model is a llama\n"
    assert rows[0].sandbox == "strict"
    for digest in stored.values():
        assert stat.S_IMODE(store.path(digest).stat().st_mode) == 0o444
    log = joblog.tail(hub, found.id or 0)
    assert "a word on stdout" in log
    assert "published plain as hub/org_model-Echo@" in log
    assert list(hub.scratch.iterdir()) == []
    again = requests.request_conversion(
        hub, "org/model", "main", "echo", ["loud", "plain"], {"say": "a word on stdout"}
    )
    assert again.id == found.id


def test_only_what_is_missing_is_made(hub: Settings) -> None:
    run(hub, "plain")
    found = run(hub, "plain", "loud")
    assert found.state == "done"
    log = joblog.tail(hub, found.id or 0)
    assert "plain is there already" in log
    assert "published plain" not in log
    assert "published loud" in log


@pytest.mark.slow
def test_variants_that_were_finished_before_a_failure_stay(hub: Settings) -> None:
    # The plugin's second variant hits a limit that its first does not.
    small = hub.model_copy(update={"output_limit": 20 << 20})
    found = run(small, "plain", "loud", write=15)
    assert (found.state, found.error_kind) == ("failed", "output_too_large")
    with db.reading(hub.database) as session:
        made = jobs.describe(session, hub, found)["artefacts"]
    assert [one["variant"] for one in made] == ["plain"]


def test_a_plugin_that_changed_meanwhile_makes_nothing_else(
    hub: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = requests.request_conversion(hub, "org/model", "main", "echo", ["plain"], {})
    read = formats.get

    def newer(settings: Settings, name: str) -> Format:
        return read(settings, name).model_copy(update={"version": "99"})

    monkeypatch.setattr(formats, "get", newer)
    tasks.run(hub, job.id or 0, "w")
    with db.reading(hub.database) as session:
        found = jobs.get(session, job.id or 0)
    assert (found.state, found.error_kind) == ("failed", "plugin_changed")
    assert "99" in (found.error_message or "")
    again = requests.request_conversion(hub, "org/model", "main", "echo", ["plain"], {})
    assert (again.state, again.id != found.id) == ("queued", True)


def test_a_cancelled_conversion_ends(hub: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    report = convert.Holding.report

    def cancelling(self: convert.Holding, progress: float, message: str) -> None:
        report(self, progress, message)
        jobs.cancel(hub, self.claim.id)

    monkeypatch.setattr(convert.Holding, "report", cancelling)
    found = run(hub, "plain", sleep=600)
    assert found.state == "cancelled"


def test_what_the_plugin_refuses(hub: Settings) -> None:
    other = json.dumps({"model_type": "unsupported"}).encode()
    publish(hub, "org/other", FILES | {"config.json": other}, facts={"parameters": 100})
    with pytest.raises(Unprocessable, match="does not know the architecture"):
        requests.request_conversion(hub, "org/other", "main", "echo", ["plain"], {})


def test_a_source_is_laid_out_without_code_and_pickles(settings: Settings, tmp_path: Path) -> None:
    sha = publish(settings, "org/model", FILES)
    with db.reading(settings.database) as session:
        source = convert.read_source(session, "org/model", sha)
    store = BlobStore(settings.blobs)
    folder = tmp_path / "data" / "source"
    convert.lay_out(store, source.entries, folder)
    laid = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert laid == {"config.json", "model.safetensors", "sub/tokenizer.json", "LICENSE"}
    assert (folder / "config.json").read_bytes() == CONFIG
    weights = next(entry for entry in source.entries if entry.path == "model.safetensors")
    assert (folder / "model.safetensors").samefile(store.path(weights.sha256))
    apart = tmp_path / "data" / "apart"
    convert.lay_out(store, source.entries, apart, links=False)
    assert (apart / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (apart / "model.safetensors").samefile(store.path(weights.sha256))
    store.remove(weights.sha256)
    with pytest.raises(NotFound, match=r"model\.safetensors"):
        convert.lay_out(store, source.entries, tmp_path / "data" / "again")


def test_a_conversion_finds_what_was_made_of_the_commit_before(hub: Settings) -> None:
    assert run(hub, "plain").state == "done"
    again = run(hub, "loud", act="earlier")
    assert (again.state, again.error_message) == ("done", None)
    with db.reading(hub.database) as session:
        (row,) = jobs.artefacts(session, again)
    found = next(file for file in row.files if file["path"] == "found.txt")
    with BlobStore(hub.blobs).open(found["sha256"]) as file:
        assert file.read() == b"plain/org_model-plain.txt: org_model is a llama\n"
    assert "of memory and" in joblog.tail(hub, again.id or 0)
