"""Lists of repos: what is found, in which order, and that pages fit together."""

import base64
import json
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub import db, listing, repos
from hub.config import Settings
from hub.errors import InvalidRequest
from hub.repos import Entry


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """An empty hub, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return settings
    found: Settings = request.getfixturevalue("postgres_settings")
    return found


def add(settings: Settings, name: str, sha: str = "a" * 40, **more: Any) -> None:
    more.setdefault("kind", "mirrored")
    entries = [Entry("config.json", "1" * 64, 1, "1" * 40)]
    with db.writing(settings.database) as session:
        repos.add_commit(session, name=name, sha=sha, entries=entries, **more)


def fill(settings: Settings) -> None:
    for number, name in enumerate(["Qwen/Qwen3-0.6B", "qwen/tiny", "meta/Llama", "a_b/c", "axb/c"]):
        facts = {"parameters": number * 100 or None, "tier": "tiny", "license": "mit"}
        add(settings, name, sha=f"{number:040x}", facts=facts)
    add(settings, "hub/Qwen_Qwen3-0.6B-GGUF", kind="derived", source="Qwen/Qwen3-0.6B")


def names(settings: Settings, **query: Any) -> list[str]:
    with db.reading(settings.database) as session:
        return [repo.name for repo in listing.page(session, **query)[0]]


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
            page, cursor = listing.page(session, sort=sort, limit=limit, cursor=cursor)
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
        _page, cursor = listing.page(session, sort="name", limit=1)
        with pytest.raises(InvalidRequest) as raised:
            listing.page(session, sort="updated", cursor=cursor)
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
            listing.read_cursor(cursor, sort, kind)
        assert raised.value.kind == "bad_cursor"


@given(st.floats(-1e12, 1e12) | st.text().filter(str.isprintable), st.integers(0, 2**40))
def test_cursors_come_back(position: float | str, last: int) -> None:
    kind = str if isinstance(position, str) else float
    cursor = listing.write_cursor("name", position, last)
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")
    assert listing.read_cursor(cursor, "name", kind) == (position, last)
