"""Tokens: their shape, their life, and what of them is kept."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import db, tokens
from hub.config import Settings
from hub.errors import InvalidRequest, NotFound
from hub.tokens import Scope


def make(settings: Settings, **keywords: object) -> tuple[str, int]:
    with db.writing(settings.database) as session:
        text, row = tokens.create(session, "me", **keywords)
        session.flush()
        assert row.id is not None
        return text, row.id


def test_a_token_has_the_shape_that_llama_cpp_sends(settings: Settings) -> None:
    text, _ = make(settings)
    assert re.fullmatch(r"hf_[A-Za-z0-9]{34,253}", text)
    assert tokens.well_formed(text)


def test_only_its_digest_is_kept(settings: Settings) -> None:
    text, _ = make(settings)
    with db.reading(settings.database) as session:
        row = tokens.listing(session)[0]
    assert text not in repr(row)
    assert len(row.digest) == 64
    for file in settings.data.glob("hub.sqlite*"):
        assert text.encode() not in file.read_bytes()


def test_it_is_known_until_it_is_revoked(settings: Settings) -> None:
    text, number = make(settings, scope="admin")
    found = tokens.verify(settings, text)
    assert found
    assert found.scope == Scope.ADMIN
    assert tokens.valid(settings, number)
    with db.writing(settings.database) as session:
        tokens.revoke(session, number)
    assert tokens.verify(settings, text) is None
    assert tokens.valid(settings, number) is None


def test_revoking_again_changes_nothing(settings: Settings) -> None:
    _, number = make(settings)
    with db.writing(settings.database) as session:
        first = tokens.revoke(session, number).revoked_at
    with db.writing(settings.database) as session:
        assert tokens.revoke(session, number).revoked_at == first


@pytest.mark.parametrize("number", [0, -1, 7, 2**80])
def test_what_is_not_there_cannot_be_revoked(number: int, settings: Settings) -> None:
    with pytest.raises(NotFound), db.writing(settings.database) as session:
        tokens.revoke(session, number)


def test_it_expires(settings: Settings) -> None:
    text, _ = make(settings, expires_at=time.time() - 1)
    assert tokens.verify(settings, text) is None
    text, _ = make(settings, expires_at=time.time() + 60)
    assert tokens.verify(settings, text)


def test_its_use_is_noted_once_a_minute(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, number = make(settings)
    now = time.time()
    for later, noted in ((0.0, 0.0), (30.0, 0.0), (70.0, 70.0)):
        monkeypatch.setattr(tokens.time, "time", lambda at=now + later: at)
        tokens.verify(settings, text)
        row = tokens.valid(settings, number)
        assert row
        assert row.last_used_at == now + noted


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "a\x00", "<b>"])
def test_names_are_checked(name: str, settings: Settings) -> None:
    with pytest.raises(InvalidRequest), db.writing(settings.database) as session:
        tokens.create(session, name)


def test_scopes_are_checked(settings: Settings) -> None:
    with pytest.raises(InvalidRequest), db.writing(settings.database) as session:
        tokens.create(session, "me", "root")


def test_scopes_include_the_smaller_ones() -> None:
    assert Scope.ADMIN.includes(Scope.WRITE)
    assert Scope.WRITE.includes(Scope.READ)
    assert not Scope.READ.includes(Scope.WRITE)


@given(st.text(max_size=80) | st.from_regex(r"hf_[0-9A-Za-z]{49}", fullmatch=True))
def test_a_guess_is_refused_without_the_database(text: str) -> None:
    # The data folder does not exist: a look into the database would raise.
    assert tokens.verify(Settings(data="/nonexistent/hub"), text) is None


def test_one_wrong_letter_is_noticed(settings: Settings) -> None:
    text, _ = make(settings)
    for at in range(3, len(text)):
        wrong = text[:at] + ("b" if text[at] == "a" else "a") + text[at + 1 :]
        assert not tokens.well_formed(wrong)
