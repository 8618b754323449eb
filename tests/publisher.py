"""Publishes a commit step by step, and fails or dies at the step that it is told.

As a program (`publisher.py DATA`) it forks one child a step, each of which is killed there, and
prints the steps' names: from a process without threads, so that forking is safe.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event

from hub import db, repos
from hub.blobs import CHUNK, BlobStore, Disk
from hub.config import Settings
from hub.models import Commit

MESSAGE = "published"
HALF = CHUNK // 2 + 1


class Steps:
    """Counts the steps of a publication, and calls `fault` at one of them."""

    def __init__(self, at: int | None = None, fault: Callable[[str], None] | None = None) -> None:
        self.at = at
        self.fault = fault
        self.names: list[str] = []

    def hit(self, name: str) -> None:
        self.names.append(name)
        if self.fault and len(self.names) - 1 == self.at:
            self.fault(name)


class FaultyDisk(Disk):
    """Every call is a step; a write is three: before, half done, and done."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def create(self, path: Path) -> int:
        self.steps.hit("create")
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        self.steps.hit("write")
        half = super().write(descriptor, data[:HALF])
        self.steps.hit("half a write")
        return half

    def make_folder(self, path: Path) -> None:
        self.steps.hit("make folder")
        super().make_folder(path)

    def protect(self, path: Path) -> None:
        self.steps.hit("protect")
        super().protect(path)

    def sync(self, path: Path) -> None:
        self.steps.hit("sync folder" if path.is_dir() else "sync file")
        super().sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.steps.hit("rename")
        super().rename(source, target)


def kill(name: str) -> None:
    os.write(1, f"{name}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[str], None]:
    def fail(_name: str) -> None:
        raise OSError(number, os.strerror(number))

    return fail


FAULTS = {"EIO": failing(errno.EIO), "ENOSPC": failing(errno.ENOSPC)}


@contextmanager
def _watched(url: str, steps: Steps) -> Iterator[None]:
    """Make every statement and the end of the transaction a step."""
    engine = db.engine(url)

    def statement(_connection: object, _cursor: object, text: str, *_rest: object) -> None:
        steps.hit(" ".join(text.split()[:3]))

    def commit(_connection: object) -> None:
        steps.hit("commit")

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", statement)
        event.remove(engine, "commit", commit)


def contents(number: int) -> dict[str, bytes]:
    """The files of publication `number`; one is larger than a chunk, one is in all of them."""
    large = (b"%08d" % number) * (160 * 1024)
    return {"model.safetensors": large, "config.json": b"{%d}" % number, "LICENSE": b"the same"}


def name_of(number: int) -> str:
    return f"org/model-{number}"


def publish(settings: Settings, number: int, steps: Steps) -> Commit:
    """Put the files into the store, then name them in a commit: all that publishing is."""
    store = BlobStore(settings.blobs, FaultyDisk(steps))
    source = settings.data / f"source-{number}"
    entries = []
    for path, data in contents(number).items():
        source.write_bytes(data)
        stored = store.add_file(source)
        entries.append(repos.Entry(path, stored.sha256, stored.size, stored.git_sha1))
    source.unlink()
    with _watched(settings.database, steps), db.writing(settings.database) as session:
        commit = repos.add_commit(
            session,
            name=name_of(number),
            kind="mirrored",
            sha=repos.commit_sha(None, MESSAGE, entries),
            entries=entries,
            message=MESSAGE,
        )
    steps.hit("after the commit")
    return commit


def main(data: Path) -> None:
    settings = Settings(data=data)
    number = 0
    while True:
        child = os.fork()
        if child == 0:
            publish(settings, number, Steps(number, kill))
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        number += 1
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
