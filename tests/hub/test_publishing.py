"""S1 and S2: a publication may be cut at every one of its steps, and the store stays whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import publisher
import pytest
from sqlmodel import select

from hub import db, fsck, gc, repos
from hub.blobs import BlobStore
from hub.config import ROOT, Settings
from hub.errors import NoSpace
from hub.models import Commit, Repo

DAY = 24 * 3600.0


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """An empty hub, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return settings
    found: Settings = request.getfixturevalue("postgres_settings")
    return found


def is_whole(settings: Settings, number: int) -> bool:
    """Nothing of publication `number` is visible, or all of it; tells which."""
    store = BlobStore(settings.blobs)
    with db.reading(settings.database) as session:
        name = publisher.name_of(number)
        repo = session.exec(select(Repo).where(Repo.name == name)).one_or_none()
        if repo is None:
            return False
        files = repos.files(session, repos.resolve(session, repo, "main"))
        found = {}
        for file in files:
            with store.open(file.sha256) as opened:
                found[file.path] = opened.read()
        assert found == publisher.contents(number)
    return True


def assert_clean(settings: Settings) -> None:
    report = fsck.check(settings)
    assert report.ok
    assert report.findings == []


def assert_collected(settings: Settings) -> None:
    """After a collection, the store holds what rows name and not a byte more."""
    gc.collect(settings, clock=lambda: time.time() + 3 * DAY)
    store = BlobStore(settings.blobs)
    assert list(store.staging.iterdir()) == []
    assert fsck.check(settings).unreferenced == 0
    assert not store.condemned.exists() or list(store.condemned.iterdir()) == []


def test_the_steps_are_in_order(settings: Settings) -> None:
    steps = publisher.Steps()
    publisher.publish(settings, 0, steps)
    first = steps.names[: steps.names.index("rename") + 2]
    assert [name for name in first if "write" not in name] == [
        "make folder",  # staging
        "sync folder",
        "create",
        "protect",
        "sync file",
        "make folder",  # sha256
        "sync folder",
        "make folder",  # sha256/ab
        "sync folder",
        "rename",
        "sync folder",
    ]
    rows = [name for name in steps.names if name.split()[0].isupper()]
    assert rows, "the rows come last"
    last_file = max(at for at, name in enumerate(steps.names) if name == "sync folder")
    assert steps.names.index(rows[0]) > last_file
    assert steps.names[-2:] == ["commit", "after the commit"]


@pytest.mark.slow
def test_killed_at_every_step(settings: Settings) -> None:
    db.engine(settings.database).dispose()
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "publisher.py"), str(settings.data)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HUB_DATABASE_URL": settings.database_url},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    names = ended.stdout.splitlines()
    assert len(names) > 30
    for number, name in enumerate(names):
        assert is_whole(settings, number) == (name == "after the commit"), name
    assert_clean(settings)
    assert_collected(settings)
    for number in range(0, len(names), 5):
        publisher.publish(settings, number, publisher.Steps())
        assert is_whole(settings, number)


@pytest.mark.parametrize("fault", sorted(publisher.FAULTS))
def test_failed_at_every_step(settings: Settings, fault: str) -> None:
    number = 0
    while True:
        steps = publisher.Steps(number, publisher.FAULTS[fault])
        errors: tuple[type[Exception], ...] = (
            (OSError, NoSpace) if fault == "ENOSPC" else (OSError,)
        )
        try:
            publisher.publish(settings, number, steps)
            break
        except errors:
            pass
        committed = steps.names[number] == "after the commit"
        assert is_whole(settings, number) == committed, steps.names[number]
        assert list(BlobStore(settings.blobs).staging.glob("*")) == []
        publisher.publish(settings, number, publisher.Steps())
        assert is_whole(settings, number)
        number += 1
    assert number > 30
    assert_clean(settings)
    assert_collected(settings)


def test_deleting_is_the_other_way_round(settings: Settings) -> None:
    publisher.publish(settings, 1, publisher.Steps())
    publisher.publish(settings, 2, publisher.Steps())
    with db.writing(settings.database) as session:
        repos.remove(session, publisher.name_of(1))
    assert is_whole(settings, 2)
    assert_clean(settings)
    report = gc.collect(settings, clock=lambda: time.time() + 3 * DAY)
    assert report.blobs == 2, "the file that both have stays"
    assert is_whole(settings, 2)
    assert_clean(settings)
    with db.reading(settings.database) as session:
        assert len(session.exec(select(Commit)).all()) == 1


def test_blobs_cannot_be_written_to(settings: Settings, tmp_path: Path) -> None:
    stored = BlobStore(settings.blobs).add_bytes(b"x")
    assert BlobStore(settings.blobs).path(stored.sha256).stat().st_mode & 0o777 == 0o444
