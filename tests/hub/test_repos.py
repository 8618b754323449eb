"""Names, commits, revisions and lists."""

import base64
import contextlib
import json
import string
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlmodel import select

from hub import db, repos
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest, NotFound, Unprocessable
from hub.models import Blob, Commit, File, Ref
from hub.repos import Entry, check_name, check_path, check_revision

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


# Names, paths and revisions


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-0.6B", "hub/Qwen_Qwen3-0.6B-GGUF", "a/b", "_a/b_", "o/" + "n" * 94]
)
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt2",
        "a/b/c",
        "/a",
        "a/",
        "../b",
        "a/..",
        "a/.b",
        "a./b",
        "-a/b",
        "a/b-",
        "a--b/c",
        "a/b..c",
        "a/b.git",
        "a/b c",
        "a/b%2e",
        "a\\b/c",
        "a/b\0",
        "a/b\n",
        "ä/b",
        "٣/b",
        "o/" + "n" * 95,
        "api/model",
        "API/model",
        "static/x",
        "v2/x",
        "models/x",
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_name(name)
    assert raised.value.kind == "bad_repo_name"
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    "path",
    ["a", "a/b.c", ".gitattributes", "a/...", "ordner/größe.txt", "模型.gguf", "a b", "s" * 255],
)
def test_good_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "..\\a",
        "%2e%2e/a",
        "a%00",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a\u202eb",
        "a\u2028b",
        "a\ud800",
        "s" * 256,
        "/".join(["s" * 200] * 6),
    ],
)
def test_bad_paths(path: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_path(path)
    assert raised.value.kind == "bad_path"
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", "refs/pr/12", "feature/x", A, "a" * 7, "gguf-Q4_K_M", "x" * 255]
)
def test_good_revisions(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize(
    "revision",
    [
        "",
        "..",
        "a..b",
        "/a",
        "a/",
        "a//b",
        "-x",
        ".a",
        "a/.b",
        "a./b",
        "a.",
        "a%2fb",
        "a\\b",
        "a\x00",
        "a b",
        "a\n",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a@{1}",
        "x" * 256,
        "ä",
    ],
)
def test_bad_revisions(revision: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_revision(revision)
    assert raised.value.kind == "bad_revision"
    assert raised.value.message.isprintable()


tricky = st.text(st.sampled_from(list("aZ0._-/\\%@~\0\n é٣\u202e\ud800")), max_size=20) | st.text()


@given(tricky)
@examples(max_examples=300)
def test_a_name_that_passes_is_harmless(name: str) -> None:
    with contextlib.suppress(InvalidRequest):
        organisation, _slash, model = check_name(name).partition("/")
        assert set(organisation + model) <= set(string.ascii_letters + string.digits + "._-")
        assert ".." not in name
        assert not {organisation[0], organisation[-1], model[0], model[-1]} & {".", "-"}


@given(tricky)
@examples(max_examples=300)
def test_a_path_that_passes_stays_in_its_folder(path: str) -> None:
    with contextlib.suppress(InvalidRequest):
        check_path(path)
        assert not {"", ".", ".."} & set(path.split("/"))
        assert not set("\\%\0") & set(path)
        assert all(unicodedata.category(letter)[0] != "C" for letter in path)
        path.encode()


@given(tricky)
@examples(max_examples=300)
def test_a_revision_that_passes_is_harmless(revision: str) -> None:
    with contextlib.suppress(InvalidRequest):
        check_revision(revision)
        assert not {"", ".", ".."} & set(revision.split("/"))
        assert revision.isascii()
        assert revision.isprintable()


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


# Lists


def fill(settings: Settings) -> None:
    for number, name in enumerate(["Qwen/Qwen3-0.6B", "qwen/tiny", "meta/Llama", "a_b/c", "axb/c"]):
        facts = {"parameters": number * 100 or None, "tier": "tiny", "license": "mit"}
        add(settings, name, sha=f"{number:040x}", facts=facts)
    add(settings, "hub/Qwen_Qwen3-0.6B-GGUF", kind="derived", source="Qwen/Qwen3-0.6B")


def names(settings: Settings, **query: Any) -> list[str]:
    with db.reading(settings.database) as session:
        return [repo.name for repo in repos.listing(session, **query)[0]]


def test_filters(settings: Settings) -> None:
    fill(settings)
    assert names(settings, q="QWEN") == ["qwen/tiny", "Qwen/Qwen3-0.6B"]
    assert names(settings, q="qwen 0.6") == ["Qwen/Qwen3-0.6B"]
    assert names(settings, q="a_b") == ["a_b/c"], "an underscore is no wildcard"
    assert names(settings, q="%") == []
    assert names(settings, kind="derived") == ["hub/Qwen_Qwen3-0.6B-GGUF"]
    assert names(settings, kind=None, source="Qwen/Qwen3-0.6B") == ["hub/Qwen_Qwen3-0.6B-GGUF"]
    assert len(names(settings, kind=None)) == 6
    assert names(settings, tier="micro") == []
    assert len(names(settings, tier="tiny", license="mit")) == 5
    assert names(settings, architecture="x") == []
    with pytest.raises(InvalidRequest, match="updated, name, parameters"):
        names(settings, sort="size")


@pytest.mark.parametrize("sort", ["updated", "name", "parameters"])
@pytest.mark.parametrize("limit", [1, 2, 5, 50])
def test_pages_have_every_repo_once(settings: Settings, sort: str, limit: int) -> None:
    fill(settings)
    found: list[str] = []
    cursor = None
    with db.reading(settings.database) as session:
        while True:
            page, cursor = repos.listing(session, sort=sort, limit=limit, cursor=cursor)
            assert len(page) <= limit
            found += [repo.name for repo in page]
            if cursor is None:
                break
    assert found == names(settings, sort=sort)
    assert len(set(found)) == len(found) == 5
    if sort == "name":
        assert found == sorted(found, key=str.lower)


def test_a_cursor_is_for_one_order(settings: Settings) -> None:
    fill(settings)
    with db.reading(settings.database) as session:
        _page, cursor = repos.listing(session, sort="name", limit=1)
        with pytest.raises(InvalidRequest) as raised:
            repos.listing(session, sort="updated", cursor=cursor)
    assert raised.value.kind == "bad_cursor"


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(
    st.text() | st.builds(encoded, st.lists(st.none() | st.booleans() | st.floats() | st.text()))
)
@example(encoded(["updated", float("nan"), 1]))
@example(encoded(["updated", 1e300, 1]))
@example(encoded(["updated", 1, 2**70]))
@example(encoded(["updated", True, 1]))
@example(encoded(["name", 1, 1]))
@example(encoded(["name", "a\0b", 1]))
@example(encoded(["name", "\ud800", 1]))
@example(encoded("[" * 10_000))
@example("[" * 10_000)
def test_foreign_cursors_are_refused(cursor: str) -> None:
    for sort, kind in (("updated", float), ("name", str)):
        with pytest.raises(InvalidRequest) as raised:
            repos.read_cursor(cursor, sort, kind)
        assert raised.value.kind == "bad_cursor"


@given(st.floats(-1e12, 1e12) | st.text().filter(str.isprintable), st.integers(0, 2**40))
def test_cursors_come_back(position: float | str, last: int) -> None:
    kind = str if isinstance(position, str) else float
    cursor = repos.write_cursor("name", position, last)
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")
    assert repos.read_cursor(cursor, "name", kind) == (position, last)


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
