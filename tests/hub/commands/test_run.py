"""Commands that run parts of the hub: here only what they refuse. What they do: test_up.py."""

import os

import pytest
from commanding import Slmhub
from sqlmodel import select

from hub import db
from hub.config import Settings
from hub.models import Job


@pytest.mark.parametrize("command", ["up", "serve"])
def test_strangers_need_a_token_before_anything_starts(
    slmhub: Slmhub, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was started"))
    slmhub.set(HUB_HOST="0.0.0.0")
    done = slmhub(command)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: The hub would be reachable from other machines")
    slmhub.set(HUB_ADMIN_TOKEN="short-secret")
    done = slmhub(command)
    assert done.code == 1
    assert "short-secret" not in done.err


def test_migrate_makes_the_folder_and_the_tables(slmhub: Slmhub, settings: Settings) -> None:
    folder = settings.data / "below" / "more"
    slmhub.set(HUB_DATA=str(folder))
    assert slmhub("migrate").code == 0
    url = Settings(data=folder).database
    with db.reading(url) as session:
        assert session.exec(select(Job)).all() == []
    db.engine(url).dispose()
    assert slmhub("migrate").code == 0


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_the_parts_take_no_code_from_the_callers_folder(
    slmhub: Slmhub, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _program, argv: started.append(argv))
    assert slmhub(command).code == 0
    assert started[0][1:3] == ["-P", "-m"]
