"""Checks that the store holds what the rows say, byte for byte, and mends what it can.

A damaged blob is put in quarantine before anything else, so none of its bytes are served from then
on. Then `heal` may fetch it anew; what stays lost is reported with every file it belongs to.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import update
from sqlmodel import Session, col, select

from hub import db
from hub.blobs import BlobStore, hash_file
from hub.config import Settings
from hub.errors import InvalidRequest
from hub.models import Blob, Commit, File, Repo

log = logging.getLogger(__name__)

_PAGE = 500


@dataclass(frozen=True)
class Finding:
    """A blob that is not as it should be: `damaged` or `missing`, and where it is used."""

    sha256: str
    problem: str
    paths: list[str]
    healed: bool


@dataclass
class Report:
    """What a check saw. `unreferenced` blobs are whole, but no row names them: the collector's."""

    blobs: int = 0
    bytes: int = 0
    unreferenced: int = 0
    findings: list[Finding] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is in order now."""
        return not self.rows and all(finding.healed for finding in self.findings)


def check(
    settings: Settings,
    subset: tuple[int, int] | None = None,
    heal: Callable[[str], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Hash every blob, or those of part n of t (`subset`, counted from 1), and compare.

    `heal` is called with the digest of a lost blob, puts it into the store if it can, and tells
    whether it did. `progress` is told the bytes done and the bytes there are.
    """
    check = _Check(settings, subset, heal, progress)
    check.known()
    check.unknown()
    check.rows()
    return check.report


class _Check:
    def __init__(
        self,
        settings: Settings,
        subset: tuple[int, int] | None,
        heal: Callable[[str], bool] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.part, self.parts = subset or (1, 1)
        if not 1 <= self.part <= self.parts:
            raise InvalidRequest(
                "bad_subset", f"There is no part {self.part} of {self.parts}", "Use 1/4, 2/4 …"
            )
        self.url = settings.database
        self.store = BlobStore(settings.blobs)
        self.heal = heal
        self.progress = progress
        self.report = Report()
        self.total = 0

    def ours(self, sha256: str) -> bool:
        """Whether a blob belongs to the part that is checked."""
        return int(sha256[:8], 16) % self.parts == self.part - 1

    def pages(self) -> Iterator[list[tuple[str, int, bool]]]:
        """All blobs that rows name, some at a time."""
        last = ""
        while True:
            with db.reading(self.url) as session:
                page = [
                    (blob.sha256, blob.size, blob.quarantined)
                    for blob in session.exec(
                        select(Blob).where(Blob.sha256 > last).order_by(Blob.sha256).limit(_PAGE)
                    )
                ]
            if not page:
                return
            last = page[-1][0]
            yield [row for row in page if self.ours(row[0])]

    def known(self) -> None:
        """Check the blobs that rows name."""
        self.total = sum(size for page in self.pages() for _sha256, size, _bad in page)
        for page in self.pages():
            good = []
            for sha256, size, quarantined in page:
                problem = self.look(sha256)
                if problem is None:
                    good.append(sha256)
                    if quarantined:
                        self.mark(sha256, quarantined=False)
                else:
                    self.found(sha256, problem)
                self.report.blobs += 1
                self.report.bytes += size
                if self.progress:
                    self.progress(self.report.bytes, max(self.total, self.report.bytes))
            with db.writing(self.url) as session:
                session.execute(
                    update(Blob).where(col(Blob.sha256).in_(good)).values(checked_at=time.time())
                )

    def unknown(self) -> None:
        """Check the files that no row names: left by an interrupted publication, or damaged."""
        page: list[str] = []
        for sha256 in self.store.iter():
            if self.ours(sha256):
                page.append(sha256)
            if len(page) == _PAGE:
                self.unlisted(page)
                page = []
        self.unlisted(page)

    def unlisted(self, page: list[str]) -> None:
        with db.reading(self.url) as session:
            known = set(session.exec(select(Blob.sha256).where(col(Blob.sha256).in_(page))))
        for sha256 in page:
            if sha256 in known:
                continue
            problem = self.look(sha256)
            if problem is None:
                self.report.unreferenced += 1
            elif problem == "damaged":
                self.found(sha256, problem)

    def look(self, sha256: str) -> str | None:
        """What is wrong with the bytes of a blob, if anything."""
        return _compare(self.store.path(sha256), sha256)

    def found(self, sha256: str, problem: str) -> None:
        """Put a bad blob out of reach, try to get a good one, and note what came of it."""
        if problem == "damaged":
            moved = self.store.quarantine(sha256)
            if moved and _compare(moved, sha256) is None:
                # Somebody stored good bytes between our look and the move.
                self.store.adopt(moved, sha256)
                return
        with db.reading(self.url) as session:
            row = session.get(Blob, sha256)
            used = _uses(session, sha256)
        if problem == "missing" and (row is None or not used):
            # The collector was faster, or was interrupted: nobody misses it.
            return
        if row is not None and not row.quarantined:
            self.mark(sha256, quarantined=True)
        healed = False
        # Without a use there is nothing to lose, and nobody to ask.
        if used and self.heal is not None and self.heal(sha256):
            healed = self.look(sha256) is None
            if healed:
                self.mark(sha256, quarantined=False)
        log.warning("blob %s is %s%s", sha256, problem, ", healed" if healed else "")
        self.report.findings.append(Finding(sha256, problem, used, healed or not used))

    def mark(self, sha256: str, *, quarantined: bool) -> None:
        with db.writing(self.url) as session:
            session.execute(
                update(Blob)
                .where(col(Blob.sha256) == sha256)
                .values(quarantined=quarantined, checked_at=time.time())
            )

    def rows(self) -> None:
        """Check that the rows agree with each other."""
        with db.reading(self.url) as session:
            sizes = session.exec(
                select(File.path, File.size, Blob.size)
                .join(Blob, col(Blob.sha256) == col(File.sha256))
                .where(File.size != Blob.size)
            )
            for path, size, stored in sizes:
                self.report.rows.append(f"{path} is said to have {size} bytes, its blob {stored}")
            orphans = session.exec(
                select(Repo.name, Repo.main).where(
                    ~select(Commit.id)
                    .where(Commit.repo_id == Repo.id, Commit.sha == Repo.main)
                    .exists()
                )
            )
            for name, main in orphans:
                self.report.rows.append(f"{name} has no commit {main}, which is its main")


def _compare(path: Path, sha256: str) -> str | None:
    try:
        # As if LFS kept it: without the id of git, which is not asked for here.
        return None if hash_file(path, lfs=True).sha256 == sha256 else "damaged"
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError):
        # A disk that cannot read it, or a file that grows: not the bytes that were stored.
        return "damaged"


def _uses(session: Session, sha256: str) -> list[str]:
    """Every file that a blob is, as repo@commit:path; the first hundred."""
    query = (
        select(Repo.name, Commit.sha, File.path)
        .join(Commit, col(Commit.repo_id) == col(Repo.id))
        .join(File, col(File.commit_id) == col(Commit.id))
        .where(File.sha256 == sha256)
        .order_by(Repo.name, col(Commit.id), File.path)
        .limit(100)
    )
    return [f"{name}@{sha[:12]}:{path}" for name, sha, path in session.exec(query)]
