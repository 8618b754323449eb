"""The collector takes what nothing needs, and never what somebody is about to publish."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from sqlmodel import select

from hub import db, environments, formats, fsck, gc, repos
from hub.blobs import BlobStore, Disk, Stored
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest, NotFound
from hub.models import Blob, Job, JobState

HOUR, DAY = 3600.0, 24 * 3600.0


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """An empty hub, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return settings
    found: Settings = request.getfixturevalue("postgres_settings")
    return found


@pytest.fixture
def store(settings: Settings) -> BlobStore:
    return BlobStore(settings.blobs)


def later() -> float:
    return time.time() + 2 * DAY


def age(path: Path, seconds: float = 2 * DAY) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def name_it(settings: Settings, stored: Stored, name: str = "org/model") -> None:
    entries = [repos.Entry("file", stored.sha256, stored.size, stored.git_sha1)]
    with db.writing(settings.database) as session:
        sha = repos.commit_sha(None, name, entries)
        repos.add_commit(session, name=name, kind="mirrored", sha=sha, entries=entries)


def unname(settings: Settings, name: str = "org/model") -> None:
    with db.writing(settings.database) as session:
        repos.remove(session, name)


def add_job(settings: Settings, **columns: object) -> int:
    row = {"kind": "convert", "request_key": "k", "repo": "org/model", **columns}
    with db.writing(settings.database) as session:
        job = Job(**row)
        session.add(job)
        session.flush()
        assert job.id is not None
        return job.id


def test_only_what_nothing_names_goes(settings: Settings, store: BlobStore) -> None:
    kept, dropped, never = (store.add_bytes(data) for data in (b"kept", b"dropped", b"never"))
    name_it(settings, kept)
    name_it(settings, dropped, "org/dropped")
    unname(settings, "org/dropped")
    report = gc.collect(settings, clock=later)
    assert (report.blobs, report.bytes) == (2, len(b"droppednever"))
    assert list(store.iter()) == [kept.sha256]
    with db.reading(settings.database) as session:
        assert session.exec(select(Blob.sha256)).all() == [kept.sha256]
    assert not store.has(never.sha256)
    assert list(store.condemned.iterdir()) == []
    assert fsck.check(settings).ok


def test_the_young_are_left(settings: Settings, store: BlobStore) -> None:
    young, old, found = (store.add_bytes(data) for data in (b"young", b"old", b"found"))
    for stored in (old, found):
        age(store.path(stored.sha256))
    assert store.has(found.sha256), "a publisher looked it up"
    assert gc.collect(settings).blobs == 1
    assert set(store.iter()) == {young.sha256, found.sha256}


def test_a_dry_run_deletes_nothing(settings: Settings, store: BlobStore) -> None:
    store.add_bytes(b"x")
    store.stage().write_bytes(b"staged")
    (settings.scratch / "7-1").mkdir(parents=True)
    report = gc.collect(settings, dry_run=True, clock=later)
    assert (report.blobs, report.bytes, report.staged, report.scratch) == (1, 1, 1, ["7-1"])
    assert gc.collect(settings, clock=later).staged == 1
    assert list(store.iter()) == []


def test_a_short_grace_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="7200 s are needed"):
        gc.collect(settings, grace=HOUR)
    gc.collect(settings, grace=0, least=0)


def test_nothing_since_the_oldest_job_goes(settings: Settings, store: BlobStore) -> None:
    stored = store.add_bytes(b"found by a job that takes days")
    age(store.path(stored.sha256), 3 * DAY)
    job = add_job(settings, state=JobState.RUNNING, created_at=time.time() - 4 * DAY)
    assert gc.collect(settings).blobs == 0
    with db.writing(settings.database) as session:
        row = session.get(Job, job)
        assert row is not None
        row.state = JobState.DONE
    assert gc.collect(settings).blobs == 1


def test_one_collector_at_a_time(settings: Settings, store: BlobStore) -> None:
    store.root.mkdir(parents=True)
    with (store.root / "gc.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="Another collector"):
            gc.collect(settings)
    gc.collect(settings)


class Interfering(Disk):
    """Lets a publisher touch the blob in the very moment before it is condemned."""

    def rename(self, source: Path, target: Path) -> None:
        if target.parent.name == "condemned":
            os.utime(source)
        super().rename(source, target)


def test_a_publisher_that_comes_in_between_is_seen(
    settings: Settings, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.add_bytes(b"x")
    name_it(settings, stored)
    unname(settings)
    age(store.path(stored.sha256))
    monkeypatch.setattr("hub.blobs.Disk", Interfering)
    assert gc.collect(settings).blobs == 0
    name_it(settings, stored)
    assert fsck.check(settings).findings == []


def test_an_interrupted_collector_is_mended(settings: Settings, store: BlobStore) -> None:
    needed, waste = store.add_bytes(b"needed"), store.add_bytes(b"waste")
    name_it(settings, needed)
    store.condemned.mkdir()
    for stored in (needed, waste):
        moved = store.condemned / f"{stored.sha256}.0"
        store.path(stored.sha256).rename(moved)
        age(moved)
    gc.collect(settings)
    assert list(store.iter()) == [needed.sha256]
    assert list(store.condemned.iterdir()) == []


def test_a_failing_database_brings_the_blob_back(
    settings: Settings, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.add_bytes(b"x")
    name_it(settings, stored)
    unname(settings)

    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("sqlmodel.Session.delete", fail)
        with pytest.raises(OSError, match="Input/output"):
            gc.collect(settings, clock=later)
    assert list(store.iter()) == [stored.sha256]
    assert fsck.check(settings).ok
    assert gc.collect(settings, clock=later).blobs == 1


def test_scratch_of_ended_attempts_goes(settings: Settings) -> None:
    until = time.time() + 9 * DAY
    running = add_job(
        settings, state=JobState.RUNNING, created_at=until, lease_token=1, lease_until=until
    )
    for name in (f"{running}-1", "99-1", "other"):
        (settings.scratch / name / "deep").mkdir(parents=True)
    assert gc.collect(settings, clock=later).scratch == ["99-1", "other"]
    assert [path.name for path in settings.scratch.iterdir()] == [f"{running}-1"]


def test_half_downloads_stay_while_anything_is_mirrored(settings: Settings) -> None:
    part = settings.data / "partial" / "abc"
    part.mkdir(parents=True)
    job = add_job(settings, kind="mirror", created_at=time.time() + 9 * DAY)
    assert gc.collect(settings, clock=later).partial == []
    with db.writing(settings.database) as session:
        row = session.get(Job, job)
        assert row is not None
        row.state = JobState.FAILED
    assert gc.collect(settings).partial == [], "it may be resumed"
    assert gc.collect(settings, clock=later).partial == ["abc"]
    assert not part.exists()


def test_old_quarantine_goes(settings: Settings, store: BlobStore) -> None:
    stored = store.add_bytes(b"x")
    store.quarantine(stored.sha256)
    assert gc.collect(settings, clock=later).quarantined == 0
    assert gc.collect(settings, clock=lambda: time.time() + 40 * DAY).quarantined == 1


def test_environments_of_unknown_plugins_go(settings: Settings) -> None:
    old = settings.environments / "no-such-plugin" / "0123456789abcdef"
    old.mkdir(parents=True)
    assert gc.collect(settings).environments == []
    report = gc.collect(settings, clock=later)
    assert report.environments == ["no-such-plugin/0123456789abcdef"]
    assert not old.exists()


def test_the_environment_in_use_stays(settings: Settings) -> None:
    link = formats.environment(settings, formats.get(settings, "echo"))
    for name in ("current", "older"):
        (link.parent / name / "bin").mkdir(parents=True)
    link.symlink_to("current")
    assert gc.collect(settings, clock=later).environments == ["echo/older"]
    assert sorted(path.name for path in link.parent.iterdir()) == sorted(["current", link.name])


def test_an_environment_that_something_holds_stays(settings: Settings) -> None:
    link = formats.environment(settings, formats.get(settings, "echo"))
    for name in ("current", "older"):
        (link.parent / name / "bin").mkdir(parents=True)
    link.symlink_to("current")
    with environments.in_use(link.parent / "older"):
        assert gc.collect(settings, clock=later).environments == []
    lock = link.parent / ".lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert gc.collect(settings, clock=later).environments == []
    assert gc.collect(settings, clock=later).environments == ["echo/older"]
    assert lock.exists()


GRACE = 1.0


def run(settings: Settings, writers: int, commits: int, collected: int) -> list[str]:
    """Publish, remove and read beside a collector without any patience, until there were so many
    commits and it has taken so many blobs; return what went wrong."""
    store = BlobStore(settings.blobs)
    wrong: list[str] = []
    counts = [0] * writers
    stop = threading.Event()

    def turn(number: int) -> None:
        began = time.monotonic()
        # Each blob is left alone just until the collector may take it, and then taken up again.
        data = b"%d %d" % (number % 3, began / GRACE % 2)
        stored, name = store.add_bytes(data), f"org/model-{number}"
        if not store.has(stored.sha256):
            return
        name_it(settings, stored, name)
        try:
            with store.open(stored.sha256) as file:
                if file.read() != data:
                    wrong.append("other bytes")
        except NotFound:
            # What a publisher touched within this time is safe; a busy machine may take longer for
            # a turn, and then the blob may go. File systems round what they note down a little.
            if time.monotonic() - began < 0.9 * GRACE:
                raise
        unname(settings, name)
        counts[number] += 1

    def write(number: int) -> None:
        try:
            while not stop.is_set():
                turn(number)
        except Exception as error:
            wrong.append(repr(error))
            stop.set()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    taken = 0
    try:
        while (sum(counts) < commits or taken < collected) and not stop.is_set():
            taken += gc.collect(settings, grace=GRACE, least=0).blobs
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return wrong


@pytest.mark.slow
def test_collecting_beside_publishers(settings: Settings) -> None:
    assert run(settings, writers=3, commits=50, collected=5) == []
    assert fsck.check(settings).ok


@pytest.mark.slow
def test_collecting_beside_many_publishers(settings: Settings) -> None:
    assert run(settings, writers=10, commits=500, collected=20) == []
    assert fsck.check(settings).ok
