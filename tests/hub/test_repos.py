"""Commits, their files, the revisions that name them, and their removal."""

from typing import Any

import pytest
from sqlmodel import select

from hub import db, repos
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest, NotFound, Unprocessable
from hub.models import Blob, Commit, File, Ref
from hub.repos import Entry

A, B = "a" * 40, "b" * 40


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """An empty hub, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return settings
    found: Settings = request.getfixturevalue("postgres_settings")
    return found


def entry(path: str, content: str = "1") -> Entry:
    return Entry(path, content * 64, 1, content * 40)


def add(settings: Settings, name: str = "org/model", sha: str = A, **more: Any) -> Commit:
    more.setdefault("kind", "mirrored")
    more.setdefault("entries", [entry("config.json")])
    with db.writing(settings.database) as session:
        return repos.add_commit(session, name=name, sha=sha, **more)


# Commits


def test_a_commit_is_found_again(settings: Settings) -> None:
    add(settings, entries=[entry("b", "2"), entry("a/c")], message="first", upstream="x")
    with db.reading(settings.database) as session:
        repo = repos.find(session, "org/model")
        commit = repos.resolve(session, repo, "main")
        assert (commit.sha, commit.message, repo.upstream) == (A, "first", "x")
        assert [file.path for file in repos.files(session, commit)] == ["a/c", "b"]
        assert repos.file(session, commit, "b").sha256 == "2" * 64
        with pytest.raises(NotFound) as raised:
            repos.file(session, commit, "c")
        assert raised.value.kind == "entry_not_found"
        with pytest.raises(NotFound) as raised:
            repos.find(session, "org/other")
        assert raised.value.kind == "repo_not_found"


def test_facts_reach_the_columns_of_main(settings: Settings) -> None:
    add(settings, facts={"parameters": 5, "tier": "tiny", "license": "mit"})
    add(settings, sha=B, facts={"parameters": 6, "tier": "tiny"}, move_main=False)
    with db.reading(settings.database) as session:
        repo = repos.find(session, "org/model")
        assert (repo.main, repo.parameters, repo.tier, repo.license) == (A, 5, "tiny", "mit")
        assert repos.resolve(session, repo, B).facts["parameters"] == 6


def test_main_moves(settings: Settings) -> None:
    add(settings)
    add(settings, sha=B, entries=[entry("config.json", "2")])
    with db.reading(settings.database) as session:
        repo = repos.find(session, "org/model")
        assert repos.resolve(session, repo, "main").sha == B
        old = repos.resolve(session, repo, A)
        assert repos.file(session, old, "config.json").sha256 == "1" * 64


def test_the_same_commit_again_changes_nothing(settings: Settings) -> None:
    assert add(settings).id == add(settings).id
    with db.reading(settings.database) as session:
        assert len(session.exec(select(File)).all()) == 1
        assert len(session.exec(select(Blob)).all()) == 1


def test_a_commit_never_changes(settings: Settings) -> None:
    add(settings)
    with pytest.raises(Conflict) as raised:
        add(settings, entries=[entry("config.json", "2")])
    assert raised.value.kind == "commit_differs"
    assert "1" * 64 in raised.value.message
    assert "2" * 64 in raised.value.message
    with db.reading(settings.database) as session:
        assert session.exec(select(File.sha256)).all() == ["1" * 64]
        assert len(session.exec(select(Blob)).all()) == 1


def test_a_mirrored_commit_may_gain_files(settings: Settings) -> None:
    add(settings)
    add(settings, entries=[entry("config.json"), entry("pickle.bin", "2")])
    add(settings)
    with db.reading(settings.database) as session:
        assert session.exec(select(File.path)).all() == ["config.json", "pickle.bin"]


def test_a_derived_commit_may_not(settings: Settings) -> None:
    add(settings, kind="derived")
    with pytest.raises(Conflict, match=r"without pickle\.bin"):
        add(settings, kind="derived", entries=[entry("config.json"), entry("pickle.bin", "2")])


def test_kinds_do_not_mix(settings: Settings) -> None:
    add(settings)
    with pytest.raises(Conflict) as raised:
        add(settings, sha=B, kind="derived")
    assert raised.value.kind == "repo_exists"


@pytest.mark.parametrize(
    "entries",
    [[entry("a"), entry("a", "2")], [entry("a"), entry("a/b")], [entry("a/b/c"), entry("a/b")]],
)
def test_paths_that_clash_are_refused(settings: Settings, entries: list[Entry]) -> None:
    with pytest.raises(Unprocessable) as raised:
        add(settings, entries=entries)
    assert raised.value.kind == "bad_commit"


def test_bad_paths_and_ids_never_become_rows(settings: Settings) -> None:
    for more in ({"entries": [entry("../a")]}, {"sha": "main"}, {"name": "api/x"}):
        with pytest.raises(InvalidRequest):
            add(settings, **more)
    with db.reading(settings.database) as session:
        assert session.exec(select(Commit)).all() == []


def test_fresh_bytes_end_a_quarantine(settings: Settings) -> None:
    add(settings)
    with db.writing(settings.database) as session:
        session.exec(select(Blob)).one().quarantined = True
    add(settings)
    with db.reading(settings.database) as session:
        assert not session.exec(select(Blob)).one().quarantined


def test_many_files(settings: Settings) -> None:
    entries = [Entry(f"f{n:04}", f"{n:064x}", 1, f"{n:040x}") for n in range(1500)]
    add(settings, entries=entries)
    with db.reading(settings.database) as session:
        repo = repos.find(session, "org/model")
        assert len(repos.files(session, repos.resolve(session, repo, "main"))) == 1500


def test_commit_ids_depend_on_everything() -> None:
    base = repos.commit_sha(None, "m", [entry("a"), entry("b")])
    assert len(base) == 40
    assert base == repos.commit_sha(None, "m", [entry("b"), entry("a")])
    others = {
        repos.commit_sha(A, "m", [entry("a"), entry("b")]),
        repos.commit_sha(None, "n", [entry("a"), entry("b")]),
        repos.commit_sha(None, "m", [entry("a")]),
        repos.commit_sha(None, "m", [entry("a"), entry("b", "2")]),
    }
    assert len(others | {base}) == 5


# Revisions


def test_every_way_to_name_a_commit(settings: Settings) -> None:
    add(settings, ref="v1.0")
    add(settings, sha=B, ref="refs/pr/3")
    with db.reading(settings.database) as session:
        repo = repos.find(session, "org/model")
        for revision, sha in {
            "main": B,
            "refs/heads/main": B,
            "v1.0": A,
            "refs/tags/v1.0": A,
            "refs/pr/3": B,
            A: A,
            A[:7]: A,
            B[:20]: B,
        }.items():
            assert repos.resolve(session, repo, revision).sha == sha
        for revision in ("v2", "c" * 40, "aaaaaa", "A" * 40, "refs/pr/4"):
            with pytest.raises(NotFound) as raised:
                repos.resolve(session, repo, revision)
            assert raised.value.kind == "revision_not_found"
        with pytest.raises(InvalidRequest):
            repos.resolve(session, repo, "../main")


def test_a_prefix_of_two_commits_names_none(settings: Settings) -> None:
    add(settings, sha="c" * 39 + "0")
    add(settings, sha="c" * 39 + "1")
    with db.reading(settings.database) as session:
        repo = repos.find(session, "org/model")
        with pytest.raises(NotFound):
            repos.resolve(session, repo, "c" * 10)
        assert repos.resolve(session, repo, "c" * 39 + "1")


def test_refs_move(settings: Settings) -> None:
    add(settings, ref="dev")
    add(settings, sha=B, ref="dev")
    with db.reading(settings.database) as session:
        assert [(ref.name, ref.sha) for ref in session.exec(select(Ref))] == [("dev", B)]


# Removal


def test_removal_takes_all_rows_but_blobs(settings: Settings) -> None:
    add(settings, ref="v1")
    with db.writing(settings.database) as session:
        repos.remove(session, "org/model")
    with db.reading(settings.database) as session:
        for table in (Commit, File, Ref):
            assert session.exec(select(table)).all() == []
        assert len(session.exec(select(Blob)).all()) == 1
        with pytest.raises(NotFound):
            repos.remove(session, "org/model")


def test_a_removed_commit_comes_back_only_as_it_was(settings: Settings) -> None:
    add(settings)
    with db.writing(settings.database) as session:
        repos.remove(session, "org/model")
    with pytest.raises(Conflict) as raised:
        add(settings, entries=[entry("config.json", "2")])
    assert raised.value.kind == "commit_differs"
    with db.reading(settings.database) as session, pytest.raises(NotFound):
        repos.find(session, "org/model")
    add(settings)
    add(settings, sha=B, entries=[entry("config.json", "2")])
