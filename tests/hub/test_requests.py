"""Requests: what is refused at once, and what becomes one job."""

import json
from pathlib import Path
from typing import Any

import pytest
from published import publish

from hub import artefacts, asking, db, formats, jobs, leases, requests
from hub.artefacts import Made, Recipe, Source
from hub.asking import Appraisal, Estimate
from hub.config import Settings
from hub.errors import Conflict, HubError, InvalidRequest, NoSpace, NotFound, Unprocessable
from hub.formats import State
from hub.models import Job
from hub.outline import Outline

CONFIG = json.dumps({"hidden_size": 64}).encode()
FACTS = {"parameters": 1000, "vocabulary": 100, "license": "mit"}


@pytest.fixture
def ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A hub with a mirrored model and the echo plugin ready; no process is started."""
    monkeypatch.setattr(formats, "state", lambda *_: State("ready"))
    monkeypatch.setattr(asking, "_answers", lambda _: False)
    mirrored(settings)
    return settings


def mirrored(settings: Settings, facts: dict[str, Any] = FACTS) -> str:
    files = {"config.json": CONFIG, "model.safetensors": b"x" * 100, "LICENSE": b"free"}
    return publish(settings, "org/model", files, facts=facts)


def ask(settings: Settings, *variants: str, **options: object) -> Job:
    return requests.request_conversion(
        settings, "org/model", "main", "echo", variants or ("plain",), options
    )


def test_a_conversion_becomes_a_job(ready: Settings) -> None:
    job = ask(ready, "plain", "loud", "plain", sleep="2")
    assert (job.kind, job.state, job.plugin, job.repo) == ("convert", "queued", "echo", "org/model")
    assert job.commit is not None
    assert len(job.commit) == 40
    assert job.request["variants"] == ["plain", "loud"]
    assert job.request["options"]["sleep"] == 2.0
    assert job.request["options"]["write"] == 0
    assert list(job.request["keys"]) == ["plain", "loud"]
    # In another order, with a default spelled out: the same.
    assert ask(ready, "loud", "plain", sleep=2, write="0").id == job.id
    assert ask(ready, "plain").id != job.id


@pytest.mark.parametrize(
    ("values", "error", "kind", "words"),
    [
        ({"plugin": "nope"}, Unprocessable, "unknown_plugin", "echo"),
        ({"variants": ["Q4"]}, Unprocessable, "unknown_variant", "plain, loud"),
        ({"variants": []}, Unprocessable, "no_variant", "plain, loud"),
        ({"options": {"nope": 1}}, Unprocessable, "unknown_option", "sleep"),
        ({"options": {"sleep": 4000}}, Unprocessable, "bad_option", "3600"),
        ({"repo": "org/other"}, NotFound, "repo_not_found", "org/other"),
        ({"revision": "nope"}, NotFound, "revision_not_found", "nope"),
        ({"repo": "../etc"}, InvalidRequest, "bad_repo_name", "etc"),
        ({"revision": "a\0b"}, InvalidRequest, "bad_revision", ""),
    ],
)
def test_what_cannot_be_is_refused(
    ready: Settings, values: dict[str, Any], error: type[HubError], kind: str, words: str
) -> None:
    given: dict[str, Any] = {"repo": "org/model", "plugin": "echo", "variants": ["plain"]}
    with pytest.raises(error) as caught:
        requests.request_conversion(ready, **(given | values))
    assert caught.value.kind == kind
    assert words in caught.value.message + caught.value.hint


def test_a_plugin_that_is_not_ready(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "state", lambda *_: State("not installed", "run it"))
    with pytest.raises(Conflict, match="not installed") as caught:
        ask(ready)
    assert "slmhub plugins install echo" in caught.value.hint


def test_a_model_the_plugin_cannot_convert(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def appraise(_settings: Settings, _fmt: object, model: Outline, *_: object) -> Appraisal:
        seen.extend([model.config, list(model.files)])
        return Appraisal("It does not know FooForCausalLM.")

    monkeypatch.setattr(asking, "appraise", appraise)
    with pytest.raises(Unprocessable, match="FooForCausalLM"):
        ask(ready)
    assert seen == [{"hidden_size": 64}, ["LICENSE", "config.json", "model.safetensors"]]


def test_a_disk_or_a_memory_that_is_too_small(
    settings: Settings, ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored(settings, FACTS | {"parameters": 10**15})
    with pytest.raises(
        NoSpace, match=r"needs about [\d,.]+ TB of disk, and [\d,.]+ [GT]B are free"
    ):
        ask(ready)
    mirrored(settings)
    much = Appraisal(estimates={"plain": Estimate(10, 10**9, 0)})
    monkeypatch.setattr(asking, "appraise", lambda *_: much)
    small = Settings(data=settings.data, memory_limit=300_000_000)
    with pytest.raises(NoSpace, match=r"about 1\.0 GB of memory, and 300\.0 MB may be used"):
        ask(small)


def test_a_derived_repo_is_not_converted(ready: Settings) -> None:
    publish(ready, "hub/org_model-Echo", {"a": b"a"}, kind="derived", source="org/model")
    with pytest.raises(Unprocessable, match="is a conversion itself") as caught:
        requests.request_conversion(ready, "hub/org_model-Echo", "main", "echo", ["plain"], {})
    assert "org/model" in caught.value.hint


def test_what_is_there_is_a_done_job_at_once(
    ready: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask(ready)
    claim = leases.claim(ready, job.id or 0, "w")
    assert claim is not None
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    source = Source("org/model", job.commit or "", [], FACTS)
    fmt = formats.get(ready, "echo")
    recipe = Recipe(job.request["options"], {}, "strict")
    artefacts.publish(ready, claim, fmt, source, recipe, Made("plain", folder))
    leases.done(ready, claim)
    # Neither the plugin nor its process is needed for an answer that is there.
    monkeypatch.setattr(formats, "state", lambda *_: State("not installed"))
    assert ask(ready).id == job.id
    with db.writing(ready.database) as session:
        session.delete(session.get(Job, job.id))
    other = ask(ready)
    assert (other.state, other.progress) == ("done", 1.0)
    with db.reading(ready.database) as session:
        shown = jobs.describe(session, ready, other)
    assert shown["artefacts"][0]["files"][0]["path"] == "a.txt"


def test_mirrors(settings: Settings, tmp_path: Path) -> None:
    job = requests.request_mirror(settings, "Qwen/Qwen3-0.6B", "main")
    assert (job.kind, job.state, job.request) == ("mirror", "queued", {})
    assert requests.request_mirror(settings, "Qwen/Qwen3-0.6B").id == job.id
    assert requests.request_mirror(settings, "Qwen/Qwen3-0.6B", "v1").id != job.id
    local = requests.request_mirror(settings, "Qwen/Qwen3-0.6B", "main", tmp_path)
    assert local.id != job.id
    assert local.request == {"folder": str(tmp_path)}
    jobs.cancel(settings, job.id or 0)
    again = requests.again(settings, job.id or 0)
    assert again.id not in (job.id, None)
    assert requests.again(settings, local.id or 0).id == local.id


@pytest.mark.parametrize(
    ("repo", "revision", "folder", "kind"),
    [
        ("gpt2", "main", None, "bad_repo_name"),
        ("../../etc", "main", None, "bad_repo_name"),
        ("a/b/c", "main", None, "bad_repo_name"),
        ("api/x", "main", None, "bad_repo_name"),
        ("a/%2e%2e", "main", None, "bad_repo_name"),
        ("a/b\\c", "main", None, "bad_repo_name"),
        ("a/" + "b" * 200, "main", None, "bad_repo_name"),
        ("a/b", "../x", None, "bad_revision"),
        ("a/b", "x\0", None, "bad_revision"),
        ("hub/x", "main", None, "own_namespace"),
        ("Hub/x", "main", None, "own_namespace"),
        ("a/b", "main", Path("relative"), "no_such_folder"),
        ("a/b", "main", Path("/no/such/folder"), "no_such_folder"),
    ],
)
def test_mirrors_that_are_refused(
    settings: Settings, repo: str, revision: str, folder: Path | None, kind: str
) -> None:
    with pytest.raises(HubError) as caught:
        requests.request_mirror(settings, repo, revision, folder)
    assert caught.value.kind == kind
    with db.reading(settings.database) as session:
        assert jobs.listing(session)[0] == []
