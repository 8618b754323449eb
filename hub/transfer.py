"""Fetches files from upstream into the blob store: in parallel parts, resumed, and checked.

A file is hashed while it arrives, by a thread that follows the bytes that are there without a gap,
so its digest is known almost as soon as its last byte. Only then does the store get it.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hub.blobs import BlobStore, DigestMismatch, Stored, hash_file, lfs_pointer_sha1
from hub.outbound import Answer
from hub.partial import Busy, Partial, part_size
from hub.patience import Cancelled, Interrupted, patiently, sleep
from hub.upstream import BLOCK, Cancel, HttpUpstream, RemoteFile, Snapshot

PROGRESS = 64 * 1024
"""Bytes that a connection must have brought so that its break is not counted as a failure."""
HASH_BLOCK = 1024 * 1024

Report = Callable[[int], None]


def key(file: RemoteFile) -> str:
    """The name under which a file arrives: that of its content."""
    return file.sha256 or f"git-{file.git_sha1}-{file.size}"


@dataclass
class Arriving:
    """One file on its way."""

    file: RemoteFile
    partial: Partial
    whole: bool = False
    """Upstream sends this file only from its beginning: one connection does it all."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Whether the caller is the one that takes the whole file."""
        with self.lock:
            first, self.whole = not self.whole, True
            return first


class Transfer:
    """Fetches files of one snapshot. Use `run` once."""

    def __init__(
        self,
        upstream: HttpUpstream,
        snapshot: Snapshot,
        store: BlobStore,
        folder: Path,
        *,
        parallel: int = 4,
    ) -> None:
        self.upstream = upstream
        self.snapshot = snapshot
        self.store = store
        self.folder = folder
        self.parallel = parallel
        self._stop = threading.Event()
        self._parts: deque[tuple[Arriving, int]] = deque()
        self._lock = threading.Lock()
        self._done = 0

    def run(
        self, files: Sequence[RemoteFile], report: Report, cancelled: Cancel
    ) -> dict[str, Stored]:
        """Fetch the files; return what was stored, by the key of each file.

        `report` gets the number of bytes that are there, a few times a second. What has arrived
        stays for another try when this one fails or is cancelled; bytes with a wrong digest do not.
        """
        stored: dict[str, Stored] = {}
        with ExitStack() as stack:
            arriving = []
            # Two mirrors that need the same files take them in the same order: no deadlock.
            for file in sorted({key(file): file for file in files}.values(), key=key):
                partial = self._begin(file, cancelled)
                if partial is None:
                    stored[key(file)] = Stored(
                        file.sha256 or "",
                        file.size,
                        lfs_pointer_sha1(file.sha256 or "", file.size),
                    )
                    continue
                stack.callback(partial.close)
                arriving.append(Arriving(file, partial))
            # Small files first: what is wrong with them is known early.
            arriving.sort(key=lambda each: (each.file.size, each.file.path))
            self._done = sum(each.partial.done for each in arriving)
            stored |= self._all(arriving, report, cancelled)
        return stored

    def _begin(self, file: RemoteFile, cancelled: Cancel) -> Partial | None:
        """Begin or resume a file; None when another process has stored it meanwhile."""
        while True:
            if file.sha256 and self.store.has(file.sha256):
                return None
            try:
                return Partial(
                    self.folder / key(file), file.size, part_size(file.size, self.parallel)
                )
            except Busy:
                sleep(0.5, cancelled)

    def _all(
        self, arriving: list[Arriving], report: Report, cancelled: Cancel
    ) -> dict[str, Stored]:
        for each in arriving:
            self._parts.extend((each, index) for index in range(each.partial.parts))
        stored: dict[str, Stored] = {}
        with ThreadPoolExecutor(self.parallel + 1, thread_name_prefix="mirror") as pool:
            work: list[Future[None]] = [
                pool.submit(self._connection) for _ in range(min(self.parallel, len(self._parts)))
            ]
            work.append(pool.submit(self._follow, arriving, stored))
            try:
                while True:
                    report(self._done)
                    ended, pending = wait(work, timeout=0.25, return_when=FIRST_EXCEPTION)
                    failed = [future for future in ended if future.exception() is not None]
                    if failed:
                        raise failed[0].exception() or AssertionError
                    if not pending:
                        break
                    if cancelled():
                        raise Cancelled
            except BaseException:
                # Also on Ctrl-C: the pool waits for its threads, and they for bytes.
                self._stop.set()
                self.upstream.web.abort()
                raise
        report(self._done)
        return stored

    def _connection(self) -> None:
        """The work of one connection: a part after the other."""
        buffer = memoryview(bytearray(BLOCK))
        while not self._stop.is_set():
            with self._lock:
                if not self._parts:
                    return
                arriving, index = self._parts.popleft()
            self._part(arriving, index, buffer)

    def _part(self, arriving: Arriving, index: int, buffer: memoryview) -> None:
        partial = arriving.partial
        while partial.have(index) < partial.length(index):
            if not patiently(lambda: self._some(arriving, index, buffer), self._stop.is_set):
                return

    def _some(self, arriving: Arriving, index: int, buffer: memoryview) -> bool:
        """One request for what is missing of a part; whether this connection shall go on with it.

        Raises Interrupted when it brought next to nothing: then it counts as a failed try.
        """
        partial, file = arriving.partial, arriving.file
        if arriving.whole:
            return False
        start = index * partial.part + partial.have(index)
        end = index * partial.part + partial.length(index)
        with self.upstream.open(self.snapshot, file, start, end) as answer:
            if answer.status == 206 or (start, end) == (0, file.size):
                self._take(arriving, answer, start, end, buffer)
                return True
            if not arriving.claim():
                return False
            self._take(arriving, answer, 0, file.size, buffer)
        while not partial.complete:
            patiently(lambda: self._from_the_start(arriving, buffer), self._stop.is_set)
        return False

    def _from_the_start(self, arriving: Arriving, buffer: memoryview) -> None:
        file = arriving.file
        with self.upstream.open(self.snapshot, file, 0, file.size) as answer:
            self._take(arriving, answer, 0, file.size, buffer)

    def _take(
        self, arriving: Arriving, answer: Answer, start: int, end: int, buffer: memoryview
    ) -> None:
        """Write the body of an answer, which is bytes start..end of the file."""
        at, new = start, 0
        try:
            for piece in answer.chunks(buffer):
                taken = piece[: end - at]
                count = arriving.partial.write(at, taken)
                at += len(taken)
                new += count
                with self._lock:
                    self._done += count
                if self._stop.is_set():
                    raise Cancelled
                if at == end:
                    return
            raise Interrupted(f"{arriving.file.path} broke off at byte {at} of {end}")
        except Interrupted:
            if new < PROGRESS or self._stop.is_set():
                raise

    def _follow(self, arriving: list[Arriving], stored: dict[str, Stored]) -> None:
        """Hash each file as it arrives, check it, and give it to the store."""
        for each in arriving:
            stored[key(each.file)] = self._finish(each)

    def _finish(self, arriving: Arriving) -> Stored:
        file, partial = arriving.file, arriving.partial
        while True:
            found, matches = self._hash(arriving)
            if matches:
                break
            if not partial.resumed:
                partial.discard()
                wanted = file.sha256 or file.git_sha1 or ""
                actual = found.sha256 if file.sha256 else found.git_sha1
                raise DigestMismatch(file.path, wanted, actual)
            # Bytes of an earlier run may be what is wrong, for instance after a power cut.
            self._again(arriving)
        self.store.adopt(partial.bytes, hashed=found, name=file.path)
        partial.discard()
        return found

    def _hash(self, arriving: Arriving) -> tuple[Stored, bool]:
        file, partial = arriving.file, arriving.partial
        if file.sha256 is None:
            self._await(partial, file.size)
            found = hash_file(partial.bytes)
            return found, found.git_sha1 == file.git_sha1
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(HASH_BLOCK))
        at = 0
        while at < file.size:
            frontier = self._await(partial, min(at + HASH_BLOCK, file.size))
            while at < frontier:
                count = partial.read(at, buffer[: frontier - at])
                digest.update(buffer[:count])
                at += count
        sha256 = digest.hexdigest()
        return Stored(sha256, file.size, lfs_pointer_sha1(sha256, file.size)), sha256 == file.sha256

    def _await(self, partial: Partial, wanted: int) -> int:
        """Wait until that many bytes are there without a gap; return how many there are."""
        with partial.condition:
            while (frontier := partial.frontier) < wanted:
                if self._stop.is_set():
                    raise Cancelled
                partial.condition.wait(0.2)
        return frontier

    def _again(self, arriving: Arriving) -> None:
        partial = arriving.partial
        with self._lock:
            self._done -= partial.done
        partial.restart()
        arriving.whole = False
        buffer = memoryview(bytearray(BLOCK))
        for index in range(partial.parts):
            self._part(arriving, index, buffer)
