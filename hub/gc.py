"""Deletes what nothing refers to any more, while everything else goes on.

Whoever publishes puts or finds the blob first, which makes it young (BlobStore.adopt, .has), and
commits rows that name it later. So the collector takes only what is older than the grace period
and than every unfinished job. It condemns a blob by moving it away within a transaction that also
looks for references, then looks at its age again: a publisher that touched it before the move is
seen, and one that comes after finds nothing and stores it anew.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session, col, func, select

from hub import db, environments, formats, scratch
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest
from hub.models import ACTIVE, Blob, File, Job

HOUR = 3600.0
DAY = 24 * HOUR
LEAST_GRACE = 2 * HOUR
QUARANTINE = 30 * DAY

_PAGE = 500


@dataclass
class Report:
    """What was deleted, or with `dry_run` would be."""

    dry_run: bool = False
    blobs: int = 0
    bytes: int = 0
    staged: int = 0
    quarantined: int = 0
    scratch: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)


def collect(
    settings: Settings,
    grace: float = DAY,
    dry_run: bool = False,
    *,
    least: float = LEAST_GRACE,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Delete unreferenced blobs, abandoned files and old environments older than `grace` seconds.

    A grace below `least` is refused: a slow publication would lose its blobs. Conflict
    (gc_running) while another collector is at work.
    """
    if grace < least:
        raise InvalidRequest(
            "grace_too_short",
            f"A grace period of {grace:.0f} s is too short: {least:.0f} s are needed",
            "Use a longer one: what is being published must not be taken for garbage",
        )
    store = BlobStore(settings.blobs)
    with _alone(settings):
        collector = _Collector(settings, store, clock(), grace, Report(dry_run))
        collector.recover()
        collector.blobs()
        collector.leftovers()
        collector.scratch()
        collector.partial()
        collector.environments()
    return collector.report


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    settings.blobs.mkdir(parents=True, exist_ok=True)
    with (settings.blobs / "gc.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "gc_running", "Another collector is at work", "Wait until it has ended"
            ) from error
        yield


class _Collector:
    def __init__(
        self, settings: Settings, store: BlobStore, now: float, grace: float, report: Report
    ) -> None:
        self.settings = settings
        self.url = settings.database
        self.store = store
        self.report = report
        with db.reading(self.url) as session:
            oldest = session.exec(
                select(func.min(Job.created_at)).where(col(Job.state).in_(ACTIVE))
            ).one()
            busy = select(Job.kind, Job.plugin).where(col(Job.state).in_(ACTIVE)).distinct()
            self.busy = set(session.exec(busy))
        # A job may take longer than the grace period, and needs what it found at its start.
        self.cutoff = now - grace if oldest is None else min(now - grace, oldest)
        self.now = now

    def recover(self) -> None:
        """Finish what an interrupted collector began: put back what is needed, delete the rest."""
        for path in _listed(self.store.condemned):
            sha256 = path.name.partition(".")[0]
            with db.writing(self.url) as session:
                needed = _referenced(session, sha256) or _touched(path) >= self.cutoff
                if needed and not self.store.path(sha256).exists() and not self.report.dry_run:
                    self.restore(path, sha256)
            if not self.report.dry_run:
                self.store.disk.unlink(path)

    def restore(self, condemned: Path, sha256: str) -> None:
        target = self.store.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.store.disk.rename(condemned, target)
        self.store.disk.sync(target.parent)

    def blobs(self) -> None:
        """Delete the blobs that no file is."""
        for sha256 in self.unreferenced():
            if _touched(self.store.path(sha256)) < self.cutoff:
                self.delete(sha256)

    def unreferenced(self) -> Iterator[str]:
        """Blobs with a row but no file, then those without even a row."""
        last = ""
        while True:
            with db.reading(self.url) as session:
                page = list(
                    session.exec(
                        select(Blob.sha256)
                        .where(
                            Blob.sha256 > last,
                            ~select(File.id).where(File.sha256 == Blob.sha256).exists(),
                        )
                        .order_by(Blob.sha256)
                        .limit(_PAGE)
                    )
                )
            if not page:
                break
            yield from page
            last = page[-1]
        page = []
        for sha256 in self.store.iter():
            page.append(sha256)
            if len(page) == _PAGE:
                yield from self.rowless(page)
                page = []
        yield from self.rowless(page)

    def rowless(self, page: list[str]) -> list[str]:
        with db.reading(self.url) as session:
            known = set(session.exec(select(Blob.sha256).where(col(Blob.sha256).in_(page))))
        return [sha256 for sha256 in page if sha256 not in known]

    def delete(self, sha256: str) -> None:
        path = self.store.path(sha256)
        size = path.stat().st_size if path.exists() else 0
        if self.report.dry_run:
            self.report.blobs += 1
            self.report.bytes += size
            return
        self.store.condemned.mkdir(exist_ok=True)
        condemned = self.store.condemned / f"{sha256}.{uuid.uuid4().hex[:8]}"
        # The move is inside the transaction on purpose, and is one system call: no commit that
        # names the blob can come between the look for references and the row's end.
        try:
            with db.writing(self.url) as session:
                row = session.exec(
                    select(Blob).where(Blob.sha256 == sha256).with_for_update()
                ).one_or_none()
                if _referenced(session, sha256):
                    return
                try:
                    self.store.disk.rename(path, condemned)
                except FileNotFoundError:
                    size = 0
                else:
                    if _touched(condemned) >= self.cutoff:
                        self.restore(condemned, sha256)
                        return
                if row is not None:
                    session.delete(row)
        except BaseException:
            if condemned.exists() and not path.exists():
                self.restore(condemned, sha256)
            raise
        self.store.disk.unlink(condemned)
        self.report.blobs += 1
        self.report.bytes += size

    def leftovers(self) -> None:
        """Delete what was staged and never adopted, and what was in quarantine for long."""
        for path in _listed(self.store.staging):
            if _newest(path) < self.cutoff:
                self.report.staged += 1
                self.remove(path)
        for path in _listed(self.store.quarantined):
            if _changed(path) < min(self.cutoff, self.now - QUARANTINE):
                self.report.quarantined += 1
                self.remove(path)

    def scratch(self) -> None:
        """Delete the scratch folders of attempts that no lease holds any more, and strange ones."""
        for path in scratch.abandoned(self.settings) + scratch.strange(self.settings):
            if _newest(path) < self.cutoff:
                self.report.scratch.append(path.name)
                self.remove(path)

    def partial(self) -> None:
        """Delete downloads that nobody went on with; while anything is mirrored, none."""
        if any(kind == "mirror" for kind, _plugin in self.busy):
            return
        for path in _listed(self.settings.data / "partial"):
            if _newest(path) < self.cutoff:
                self.report.partial.append(path.name)
                self.remove(path)

    def environments(self) -> None:
        """Delete environments that a change of pins or of Python left behind."""
        known = formats.formats(self.settings)
        for folder in _listed(self.settings.environments):
            if any(plugin == folder.name for _kind, plugin in self.busy) or not folder.is_dir():
                continue
            fmt = known.get(folder.name)
            current = {formats.environment(self.settings, fmt).name} if fmt else set()
            with environments.not_installing(folder) as free:
                for path in environments.leftovers(folder, current) if free else []:
                    self.environment(path)

    def environment(self, path: Path) -> None:
        """Delete an environment that is old, unless a conversion uses it."""
        with environments.unused(path) as free:
            if free and _changed(path) < self.cutoff:
                self.report.environments.append(f"{path.parent.name}/{path.name}")
                self.remove(path)

    def remove(self, path: Path) -> None:
        if self.report.dry_run:
            return
        if path.is_dir() and not path.is_symlink():
            scratch.remove(path)
        else:
            path.unlink(missing_ok=True)


def _referenced(session: Session, sha256: str) -> bool:
    return session.exec(select(File.id).where(File.sha256 == sha256).limit(1)).first() is not None


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _touched(path: Path) -> float:
    """When a file was last touched; the beginning of time where it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _changed(path: Path) -> float:
    """When a path itself was last changed or moved."""
    try:
        return path.lstat().st_ctime
    except FileNotFoundError:
        return 0


def _newest(path: Path) -> float:
    """The latest change of a path or anything in it."""
    newest = _changed(path)
    if path.is_dir() and not path.is_symlink():
        for parent, folders, names in os.walk(path):
            for name in (*folders, *names):
                newest = max(newest, _changed(Path(parent, name)))
    return newest
