"""A file that is arriving: its bytes, and a journal of what has been written, that survives a kill.

    partial/<key>/lock      held by the process that works on it
    partial/<key>/shape     size of the file and of its parts
    partial/<key>/journal   8 bytes a part: how many bytes of it are there, from its beginning
    partial/<key>/bytes     the file, reserved in full

The journal is written after the bytes. When a process is killed, both are in the hands of the
kernel. When the machine loses power, the journal may promise what never reached the disk: then the
digest is wrong in the end, and the file is fetched anew (hub/transfer.py).
"""

import errno
import fcntl
import json
import mmap
import os
import shutil
import struct
import threading
from pathlib import Path
from typing import Self

from hub.errors import NoSpace

MiB = 1024 * 1024
_WORD = struct.Struct("<Q")


def part_size(size: int, parallel: int) -> int:
    """Bytes of one part: small enough to keep all connections busy until the end, large enough
    that requests cost little."""
    return min(max(size // (parallel * 4) // MiB * MiB, 4 * MiB), 64 * MiB)


class Busy(Exception):
    """Another process works on this file now."""


class Partial:
    """The state of one arriving file on the disk. Any number of threads may write to it."""

    def __init__(self, folder: Path, size: int, part: int) -> None:
        """Open or begin it. Raises Busy, and NoSpace when the file cannot be reserved."""
        self.folder = folder
        self.size = size
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._own()
            self.part = self._shape(size, part)
            self.parts = max(1, -(-size // self.part))
            self._open()
        except BaseException:
            os.close(self._lock)
            raise
        self.condition = threading.Condition()
        self.resumed = self.done > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bytes(self) -> Path:
        """The file itself."""
        return self.folder / "bytes"

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(self.have(index) for index in range(self.parts))

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return all(self.have(index) == self.length(index) for index in range(self.parts))

    @property
    def frontier(self) -> int:
        """Bytes that are there from the beginning without a gap."""
        for index in range(self.parts):
            if self.have(index) < self.length(index):
                return index * self.part + self.have(index)
        return self.size

    def have(self, index: int) -> int:
        """Bytes of a part that are there."""
        value: int = _WORD.unpack_from(self._journal, index * 8)[0]
        return value

    def length(self, index: int) -> int:
        """Bytes that a part has in the end."""
        return min(self.part, self.size - index * self.part)

    def write(self, offset: int, data: memoryview) -> int:
        """Write what is missing of bytes that begin at `offset`; return how many those were.

        They may reach over several parts, but must not leave a gap within one.
        """
        new = 0
        while data:
            index = offset // self.part
            inside = offset - index * self.part
            piece = data[: self.part - inside]
            have = self.have(index)
            fresh = piece[max(0, have - inside) :]
            if fresh:
                at = index * self.part + max(have, inside)
                self._put(at, fresh)
                with self.condition:
                    # Two threads may have written the same bytes: count them once.
                    before = self.have(index)
                    after = max(before, at - index * self.part + len(fresh))
                    _WORD.pack_into(self._journal, index * 8, after)
                    new += after - before
                    self.condition.notify_all()
            data = data[len(piece) :]
            offset += len(piece)
        return new

    def read(self, offset: int, buffer: memoryview) -> int:
        """Read bytes that are there into the buffer; return how many."""
        return os.preadv(self._bytes, [buffer], offset)

    def restart(self) -> None:
        """Forget what has arrived."""
        with self.condition:
            for index in range(self.parts):
                _WORD.pack_into(self._journal, index * 8, 0)
            self.resumed = False

    def close(self) -> None:
        """Leave it for another time."""
        if self._closed:
            return
        self._closed = True
        os.close(self._bytes)
        self._journal.close()
        os.close(self._lock)

    def discard(self) -> None:
        """Remove it from the disk; it still wants to be closed."""
        # The name goes while the lock is held, so nobody can begin in a folder that vanishes.
        shutil.rmtree(self.folder, ignore_errors=True)

    def _own(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy from error
        try:
            here = (self.folder / "lock").stat()
        except FileNotFoundError as error:
            raise Busy from error
        if here.st_ino != os.fstat(self._lock).st_ino:
            # Whoever held it was done and removed the folder: what we locked is gone.
            raise Busy

    def _shape(self, size: int, part: int) -> int:
        path = self.folder / "shape"
        try:
            known = json.loads(path.read_bytes())
            known_size, known_part = int(known["size"]), int(known["part"])
            if known_size == size and known_part > 0 and (self.folder / "bytes").exists():
                return known_part
        except (OSError, ValueError, KeyError, TypeError):
            pass
        for name in ("journal", "bytes"):
            (self.folder / name).unlink(missing_ok=True)
        path.write_text(json.dumps({"size": size, "part": part}))
        return part

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        path = self.folder / "bytes"
        if path.exists():
            path.chmod(0o600)  # a publication that ended half-way has made it read-only
        self._bytes = os.open(path, flags, 0o600)
        try:
            if os.fstat(self._bytes).st_size != self.size:
                self._reserve()
            journal = os.open(self.folder / "journal", flags, 0o600)
            try:
                os.ftruncate(journal, self.parts * 8)
                self._journal = mmap.mmap(journal, self.parts * 8)
            finally:
                os.close(journal)
            for index in range(self.parts):
                if self.have(index) > self.length(index):
                    _WORD.pack_into(self._journal, index * 8, 0)
        except BaseException:
            os.close(self._bytes)
            raise

    def _reserve(self) -> None:
        if self.size:
            try:
                os.posix_fallocate(self._bytes, 0, self.size)
            except OSError as error:
                os.ftruncate(self._bytes, 0)
                raise _no_space(error, self.size) from error

    def _put(self, offset: int, data: memoryview) -> None:
        while data:
            try:
                count = os.pwrite(self._bytes, data, offset)
            except OSError as error:
                raise _no_space(error, len(data)) from error
            data, offset = data[count:], offset + count


def _no_space(error: OSError, size: int) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    return NoSpace(
        "disk_full",
        f"The disk of the hub's data folder is full: {size} bytes more do not fit",
        "Free some space, or run `slmhub gc`, and try again: what has arrived is kept",
    )
