"""S3: every damaged blob is found, put away, never served, and healed where that is possible."""

import random
from pathlib import Path

import pytest
from sqlmodel import select

from hub import db, fsck, repos
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import InvalidRequest, NotFound
from hub.models import Blob, File, Repo


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """An empty hub, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return settings
    found: Settings = request.getfixturevalue("postgres_settings")
    return found


def content(number: int) -> bytes:
    return random.Random(number).randbytes(2000 + number)


@pytest.fixture
def store(settings: Settings) -> BlobStore:
    return BlobStore(settings.blobs)


def publish(settings: Settings, count: int, repo: str = "org/model") -> list[str]:
    """A commit of `count` files; their digests."""
    store = BlobStore(settings.blobs)
    entries = []
    for number in range(count):
        stored = store.add_bytes(content(number))
        entries.append(repos.Entry(f"f{number:03}", stored.sha256, stored.size, stored.git_sha1))
    with db.writing(settings.database) as session:
        repos.add_commit(
            session,
            name=repo,
            kind="mirrored",
            sha=repos.commit_sha(None, "", entries),
            entries=entries,
        )
    return [entry.sha256 for entry in entries]


def flip(path: Path, generator: random.Random) -> None:
    """Turn over one bit of a file."""
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)


def quarantined(settings: Settings) -> set[str]:
    with db.reading(settings.database) as session:
        return set(session.exec(select(Blob.sha256).where(Blob.quarantined)))


def test_a_whole_store_is_clean(settings: Settings) -> None:
    publish(settings, 20)
    told: list[tuple[int, int]] = []
    report = fsck.check(settings, progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert (report.blobs, report.findings, report.unreferenced) == (20, [], 0)
    assert report.bytes == sum(len(content(number)) for number in range(20))
    assert told[-1] == (report.bytes, report.bytes)


def test_an_empty_hub_is_clean(settings: Settings) -> None:
    assert fsck.check(settings).ok


def test_a_hundred_flipped_bits_are_all_found(settings: Settings, store: BlobStore) -> None:
    digests = publish(settings, 150)
    generator = random.Random(3)
    bad = set(generator.sample(digests, 100))
    for sha256 in bad:
        flip(store.path(sha256), generator)
    report = fsck.check(settings)
    assert not report.ok
    assert {finding.sha256 for finding in report.findings} == bad
    assert {finding.problem for finding in report.findings} == {"damaged"}
    assert quarantined(settings) == bad
    for sha256 in bad:
        with pytest.raises(NotFound):
            store.open(sha256)
    assert len(list(store.quarantined.iterdir())) == 100
    # They are still lost, and still said to be.
    again = fsck.check(settings)
    assert {finding.sha256 for finding in again.findings} == bad
    assert {finding.problem for finding in again.findings} == {"missing"}


def test_what_can_be_fetched_again_is_healed(settings: Settings, store: BlobStore) -> None:
    digests = publish(settings, 30)
    generator = random.Random(4)
    bad = set(digests[:10])
    for sha256 in bad:
        flip(store.path(sha256), generator)
    asked = []

    def heal(sha256: str) -> bool:
        asked.append(sha256)
        store.add_bytes(content(digests.index(sha256)))
        return True

    report = fsck.check(settings, heal=heal)
    assert set(asked) == bad
    assert report.ok
    assert all(finding.healed for finding in report.findings)
    assert quarantined(settings) == set()
    assert fsck.check(settings).findings == []


def test_healing_that_only_says_so_is_not_believed(settings: Settings, store: BlobStore) -> None:
    [sha256] = publish(settings, 1)
    flip(store.path(sha256), random.Random(5))
    report = fsck.check(settings, heal=lambda sha256: True)
    assert not report.ok
    assert quarantined(settings) == {sha256}


@pytest.mark.parametrize("damage", ["gone", "cut", "longer", "empty"])
def test_other_damage(settings: Settings, store: BlobStore, damage: str) -> None:
    sha256 = publish(settings, 3)[1]
    path = store.path(sha256)
    path.chmod(0o600)
    if damage == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-1], "longer": data + b"x", "empty": b""}[damage])
    [finding] = fsck.check(settings).findings
    assert finding.sha256 == sha256
    assert finding.problem == ("missing" if damage == "gone" else "damaged")
    assert finding.paths[0].startswith("org/model@")
    assert finding.paths[0].endswith(":f001")


def test_a_fresh_copy_ends_the_quarantine(settings: Settings, store: BlobStore) -> None:
    [sha256] = publish(settings, 1)
    flip(store.path(sha256), random.Random(6))
    fsck.check(settings)
    store.add_bytes(content(0))
    assert fsck.check(settings).ok
    assert quarantined(settings) == set()


def test_parts_make_a_whole(settings: Settings, store: BlobStore) -> None:
    digests = publish(settings, 60)
    generator = random.Random(7)
    for sha256 in digests[::3]:
        flip(store.path(sha256), generator)
    reports = [fsck.check(settings, (part, 4)) for part in (1, 2, 3, 4)]
    assert sum(report.blobs for report in reports) == 60
    found = [finding.sha256 for report in reports for finding in report.findings]
    assert sorted(found) == sorted(digests[::3])
    for subset in ((0, 4), (5, 4), (1, 0)):
        with pytest.raises(InvalidRequest, match="no part"):
            fsck.check(settings, subset)


def test_files_without_rows(settings: Settings, store: BlobStore) -> None:
    publish(settings, 2)
    whole = store.add_bytes(b"left by a publication that was cut")
    torn = store.add_bytes(b"the same, but damaged")
    flip(store.path(torn.sha256), random.Random(8))
    report = fsck.check(settings)
    assert report.ok, "nobody can miss it"
    assert report.unreferenced == 1
    assert [finding.sha256 for finding in report.findings] == [torn.sha256]
    assert store.has(whole.sha256)
    assert not store.has(torn.sha256)


def test_rows_that_disagree_are_told(settings: Settings) -> None:
    publish(settings, 1)
    with db.writing(settings.database) as session:
        session.exec(select(File)).one().size = 3
        session.exec(select(Repo)).one().main = "d" * 40
    report = fsck.check(settings)
    assert not report.ok
    assert len(report.rows) == 2
    assert "f000 is said to have 3 bytes" in report.rows[0]
    assert "org/model has no commit dddd" in report.rows[1]


def test_what_was_checked_is_dated(settings: Settings) -> None:
    publish(settings, 2)
    with db.writing(settings.database) as session:
        for blob in session.exec(select(Blob)):
            blob.checked_at = 1
    fsck.check(settings)
    with db.reading(settings.database) as session:
        assert all(blob.checked_at > 1 for blob in session.exec(select(Blob)))
