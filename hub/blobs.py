"""The blob store: bytes named by their SHA-256, each stored once.

Publishing one blob takes numbered steps, and may end at any of them without harm:

1. create a file in staging/         5. compare the digest
2. write, hashing on the way         6. make the folder sha256/ab
3. make it read-only                 7. rename it to sha256/ab/cdef…
4. put it on the disk (fsync)        8. put the folder on the disk (fsync)

Only then do rows name it (hub/repos.py). The mode is set before the rename, so that a blob is never
visible and writable at once. Deletion goes the other way round: rows first, then the file.
"""

import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hub.errors import InvalidRequest, NoSpace, NotFound, UpstreamFailed

CHUNK = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DigestMismatch(UpstreamFailed):
    """Bytes do not have the digest that was promised."""

    def __init__(self, name: str, expected: str, actual: str) -> None:
        super().__init__(
            "digest_mismatch",
            f"{name} has the digest {actual}, but {expected} was promised",
            "The transfer or the source is damaged: try again, and tell the owner if it stays so",
        )
        self.expected = expected
        self.actual = actual


@dataclass(frozen=True)
class Stored:
    """What is known of bytes: SHA-256, size, and the id git gives them as a file.

    That of a file which LFS keeps is the id of its pointer.
    """

    sha256: str
    size: int
    git_sha1: str


class Hasher:
    """Computes SHA-256 and the git id of bytes together; git wants their number beforehand.

    With `lfs` the git id is that of the LFS pointer, which takes half the time.
    """

    def __init__(self, size: int, *, lfs: bool = False) -> None:
        self.expected = size
        self.size = 0
        self._sha256 = hashlib.sha256()
        # The id that git gives a file: not a protection, an address.
        head = b"blob %d\0" % size
        self._git = None if lfs else hashlib.sha1(head, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.size += len(data)
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    def stored(self) -> Stored:
        """The result; ValueError when it was not the announced number of bytes."""
        if self.size != self.expected:
            raise ValueError(f"{self.size} bytes were hashed, {self.expected} announced")
        sha256 = self._sha256.hexdigest()
        git = self._git.hexdigest() if self._git else lfs_pointer_sha1(sha256, self.size)
        return Stored(sha256, self.size, git)


class Disk:
    """The calls that change the disk, one method a step, so that tests can make each one fail."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of the data, and tell how much: it may be less than all."""
        return os.write(descriptor, data)

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def protect(self, path: Path) -> None:
        """Make it read-only, and young: the collector leaves what was touched lately."""
        path.chmod(0o444)
        os.utime(path)

    def sync(self, path: Path) -> None:
        """Put a file or a folder on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)


@contextmanager
def _space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            "disk_full",
            "The disk of the hub's data folder is full",
            "Free some space, or run `slmhub gc`, and try again",
        ) from error


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git keeps in place of a large file, as git-lfs specifies it."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    ).encode()


def lfs_pointer_sha1(sha256: str, size: int) -> str:
    """The id that git gives a large file: that of its LFS pointer."""
    return git_sha1(lfs_pointer(sha256, size))


def git_sha1(data: bytes) -> str:
    """The id that git gives a file of these bytes."""
    hasher = Hasher(len(data))
    hasher.update(data)
    return hasher.stored().git_sha1


def hash_file(path: Path, *, lfs: bool = False) -> Stored:
    """The digests of a file's bytes, as they are on the disk now."""
    with path.open("rb", buffering=0) as file:
        hasher = Hasher(os.fstat(file.fileno()).st_size, lfs=lfs)
        for chunk in _chunks_of(file):
            hasher.update(chunk)
    return hasher.stored()


def _chunks_of(file: BinaryIO) -> Iterator[memoryview]:
    """The bytes of a file, a chunk at a time, in a buffer that the next one is read into."""
    buffer = memoryview(bytearray(CHUNK))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        yield buffer[:count]


class BlobStore:
    """Blobs in a local folder. Any number of processes may use it at the same time."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self.disk = disk or Disk()

    @property
    def tree(self) -> Path:
        """The folder of the blobs."""
        return self.root / "sha256"

    @property
    def staging(self) -> Path:
        """The folder of what is still being written."""
        return self.root / "staging"

    @property
    def condemned(self) -> Path:
        """The folder where the collector puts what it is about to delete."""
        return self.root / "condemned"

    @property
    def quarantined(self) -> Path:
        """The folder of blobs whose bytes turned out not to have their digest."""
        return self.root / "quarantine"

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be."""
        if not _SHA256.fullmatch(sha256):
            raise InvalidRequest(
                "bad_digest", "A digest is 64 lowercase hexadecimal digits", "Check the address"
            )
        return self.tree / sha256[:2] / sha256[2:]

    def has(self, sha256: str) -> bool:
        """Whether the blob is there. One that is counts as new again for the collector, so whoever
        is about to publish a commit that names it has the whole grace period for that."""
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def size(self, sha256: str) -> int:
        """The number of bytes of a blob that is there."""
        return self.path(sha256).stat().st_size

    def open(self, sha256: str) -> BinaryIO:
        """The blob for reading, unbuffered position at its start."""
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError as error:
            raise NotFound(
                "blob_not_found",
                f"The bytes with the digest {sha256} are not in the store",
                "The operator can find and fetch lost blobs with `slmhub fsck --heal`",
            ) from error

    def iter(self) -> Iterator[str]:
        """The digests of all blobs, in order."""
        if not self.tree.is_dir():
            return
        for folder in sorted(self.tree.iterdir()):
            for path in sorted(folder.iterdir()):
                if _SHA256.fullmatch(folder.name + path.name):
                    yield folder.name + path.name

    def stage(self) -> Path:
        """A path for a new file on the store's file system; the caller writes it, then adopts it.
        What is never adopted, the collector removes."""
        self._make(self.staging)
        return self.staging / uuid.uuid4().hex

    def adopt(
        self,
        staged: Path,
        sha256: str | None = None,
        *,
        hashed: Stored | None = None,
        name: str = "",
        lfs: bool = False,
    ) -> Stored:
        """Take a staged file into the store. It is gone from its place afterwards.

        `sha256` is the digest it must have, `hashed` what the caller computed while writing (else
        the file is read again), `name` what to call it in a DigestMismatch, `lfs` whether LFS keeps
        it.
        """
        with _space():
            self.disk.protect(staged)
            stored = self._sync(staged, hashed, lfs)
            if sha256 is not None and stored.sha256 != sha256:
                self.disk.unlink(staged)
                raise DigestMismatch(name or "The file", sha256, stored.sha256)
            target = self.path(stored.sha256)
            self._make(target.parent)
            # Bytes that were just checked also replace older ones, which may have rotted since.
            self.disk.rename(staged, target)
            self.disk.sync(target.parent)
        return stored

    def _sync(self, staged: Path, hashed: Stored | None, lfs: bool) -> Stored:
        """Put a file on the disk, and hash it meanwhile unless that was done."""
        if hashed is not None:
            self.disk.sync(staged)
            return hashed
        with ThreadPoolExecutor(1) as pool:
            synced = pool.submit(self.disk.sync, staged)
            stored = hash_file(staged, lfs=lfs)
            synced.result()
        return stored

    def add_file(self, source: Path, *, lfs: bool = False) -> Stored:
        """Copy a regular file into the store; it stays as it is. Links are refused."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(source, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidRequest(
                    "not_a_file", f"{source.name} is not a regular file", "Remove it and try again"
                )
            chunks = self._chunks(file, source.name, status.st_size)
            return self._write(chunks, Hasher(status.st_size, lfs=lfs))

    def add_bytes(self, data: bytes) -> Stored:
        """Put bytes into the store."""
        return self._write(iter([memoryview(data)]), Hasher(len(data)))

    def remove(self, sha256: str) -> None:
        """Delete a blob; the caller has made sure that no row names it."""
        path = self.path(sha256)
        self.disk.unlink(path)
        if path.parent.is_dir():
            self.disk.sync(path.parent)

    def quarantine(self, sha256: str) -> Path | None:
        """Put a damaged blob out of reach, where it can be looked at: its new path, if there."""
        path = self.path(sha256)
        self._make(self.quarantined)
        target = self.quarantined / f"{sha256}.{uuid.uuid4().hex[:8]}"
        try:
            self.disk.rename(path, target)
        except FileNotFoundError:
            return None
        self.disk.sync(self.quarantined)
        self.disk.sync(path.parent)
        return target

    def _chunks(self, file: BinaryIO, name: str, size: int) -> Iterator[memoryview]:
        done = 0
        for chunk in _chunks_of(file):
            done += len(chunk)
            yield chunk
        if done != size:
            raise InvalidRequest(
                "file_changed",
                f"{name} changed while it was read: {done} bytes instead of {size}",
                "Make sure that nothing writes to it, and try again",
            )

    def _write(self, chunks: Iterator[memoryview], hasher: Hasher) -> Stored:
        staged = self.stage()
        try:
            with _space():
                descriptor = self.disk.create(staged)
                try:
                    for chunk in chunks:
                        hasher.update(chunk)
                        while chunk:
                            chunk = chunk[self.disk.write(descriptor, chunk) :]
                finally:
                    os.close(descriptor)
            return self.adopt(staged, hashed=hasher.stored())
        except BaseException:
            # Also on Ctrl-C: what was written so far is of no use to anyone.
            staged.unlink(missing_ok=True)
            raise

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
        if folder.parent != self.root:
            self._make(folder.parent)
        self.disk.make_folder(folder)
        self.disk.sync(folder.parent)
