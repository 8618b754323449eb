"""The store's promises one by one; faults while publishing are in test_publishing.py."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from hub.blobs import BlobStore, DigestMismatch, Disk, Hasher, git_sha1, hash_file, lfs_pointer_sha1
from hub.errors import InvalidRequest, NoSpace, NotFound


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_bytes_come_back(store: BlobStore) -> None:
    stored = store.add_bytes(b"hello\n")
    assert stored.sha256 == digest(b"hello\n")
    assert stored.size == 6
    # What `git hash-object` says of the same file.
    assert stored.git_sha1 == "ce013625030ba8dba906f756967f9e9ca394464a"
    with store.open(stored.sha256) as file:
        assert file.read() == b"hello\n"
    assert list(store.iter()) == [stored.sha256]


def test_no_bytes_at_all_are_a_blob_too(store: BlobStore) -> None:
    stored = store.add_bytes(b"")
    assert stored.git_sha1 == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert store.has(stored.sha256)


def test_the_same_bytes_are_kept_once(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    assert store.add_file(source) == store.add_bytes(b"x" * 3_000_000)
    assert len(list(store.iter())) == 1
    assert list(store.staging.iterdir()) == []
    assert source.read_bytes() == b"x" * 3_000_000


def test_lfs_pointers_are_addressed_as_git_does() -> None:
    sha256 = digest(b"hello\n")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 6\n"
    assert lfs_pointer_sha1(sha256, 6) == git_sha1(pointer.encode())


def test_adopting_moves_the_file(store: BlobStore) -> None:
    staged = store.stage()
    staged.write_bytes(b"abc")
    stored = store.adopt(staged, digest(b"abc"))
    assert not staged.exists()
    assert store.path(stored.sha256).read_bytes() == b"abc"


def test_files_that_lfs_keeps_have_the_id_of_their_pointer(
    store: BlobStore, tmp_path: Path
) -> None:
    pointer = lfs_pointer_sha1(digest(b"abc"), 3)
    staged, source = store.stage(), tmp_path / "source"
    for path in (staged, source):
        path.write_bytes(b"abc")
    assert store.adopt(staged, lfs=True) == store.add_file(source, lfs=True)
    assert hash_file(source, lfs=True).git_sha1 == pointer
    assert hash_file(source).git_sha1 == git_sha1(b"abc")


def test_a_disk_that_fails_while_a_file_is_hashed(tmp_path: Path) -> None:
    class Full(Disk):
        def sync(self, path: Path) -> None:
            if path.is_file():
                raise OSError(errno.ENOSPC, "No space left on device")
            super().sync(path)

    store = BlobStore(tmp_path / "blobs", Full())
    staged = store.stage()
    staged.write_bytes(b"abc")
    with pytest.raises(NoSpace):
        store.adopt(staged)
    assert not store.has(digest(b"abc"))


def test_adopting_believes_a_hash_made_while_writing(store: BlobStore) -> None:
    staged = store.stage()
    staged.write_bytes(b"abc")
    hasher = Hasher(3)
    hasher.update(b"ab")
    hasher.update(b"c")
    assert store.adopt(staged, hashed=hasher.stored()).sha256 == digest(b"abc")


def test_a_wrong_digest_is_refused_with_both(store: BlobStore) -> None:
    staged = store.stage()
    staged.write_bytes(b"abd")
    with pytest.raises(DigestMismatch) as raised:
        store.adopt(staged, digest(b"abc"), name="model.safetensors")
    assert raised.value.kind == "digest_mismatch"
    for part in ("model.safetensors", digest(b"abc"), digest(b"abd")):
        assert part in raised.value.message
    assert not staged.exists()
    assert list(store.iter()) == []


def test_good_bytes_replace_rotten_ones(store: BlobStore) -> None:
    stored = store.add_bytes(b"good")
    path = store.path(stored.sha256)
    path.chmod(0o600)
    path.write_bytes(b"evil")
    store.add_bytes(b"good")
    assert path.read_bytes() == b"good"


def test_finding_a_blob_makes_it_young(store: BlobStore) -> None:
    stored = store.add_bytes(b"x")
    path = store.path(stored.sha256)
    os.utime(path, (1, 1))
    assert store.has(stored.sha256)
    assert path.stat().st_mtime > 1
    assert not store.has(digest(b"other"))


def test_only_regular_files_are_copied(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        store.add_file(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="not a regular file"):
        store.add_file(tmp_path / "pipe")


@pytest.mark.parametrize("bad", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_only_digests_have_a_place(store: BlobStore, bad: str) -> None:
    with pytest.raises(InvalidRequest):
        store.path(bad)


def test_a_lost_blob_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFound, match="not in the store"):
        store.open("0" * 64)
    stored = store.add_bytes(b"x")
    store.remove(stored.sha256)
    store.remove(stored.sha256)
    assert not store.has(stored.sha256)


def test_quarantine_keeps_what_it_takes_away(store: BlobStore) -> None:
    stored = store.add_bytes(b"x")
    moved = store.quarantine(stored.sha256)
    assert moved is not None
    assert hash_file(moved) == stored
    assert not store.has(stored.sha256)
    assert store.quarantine(stored.sha256) is None


def test_a_hasher_wants_the_announced_size() -> None:
    hasher = Hasher(3)
    hasher.update(b"ab")
    with pytest.raises(ValueError, match="2 bytes were hashed, 3 announced"):
        hasher.stored()
