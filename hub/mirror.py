"""Mirrors one repo at one revision: plan first, refuse what cannot work, then fetch and publish.

Nothing is visible before everything is there: blobs are stored one by one, each checked, and one
transaction makes the commit. A mirror that ends early leaves its partial files in data/partial, for
the next try to go on from; a cancelled one too, for a day (hub/gc.py).
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from hub import db, intake, names, repos, safetensors, space
from hub.blobs import BlobStore, DigestMismatch, Stored, lfs_pointer_sha1
from hub.config import Settings
from hub.errors import NoSpace, TooLarge, Unprocessable
from hub.facts import Facts, facts
from hub.local import LocalUpstream
from hub.models import Blob, File
from hub.outline import Outline, outline
from hub.patience import Cancelled
from hub.safetensors import Header
from hub.sizes import size
from hub.transfer import Transfer, key
from hub.upstream import (
    Cancel,
    HttpUpstream,
    RemoteFile,
    Snapshot,
    Upstream,
    never,
    size_mismatch,
)

__all__ = ["Cancelled", "Plan", "mirror", "plan", "upstream"]

HEADER_GUESS = 64 * 1024
"""Bytes that most safetensors headers fit into: one request instead of two."""
MAX_DOCUMENT = 16 * 1024 * 1024
MARGIN = 1.05
"""Free space asked for, in sizes of what is to arrive."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be mirrored. `stored` tells, by path, what the store has already."""

    snapshot: Snapshot
    files: list[RemoteFile]
    facts: Facts
    outline: Outline
    stored: dict[str, Stored] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def repo(self) -> str:
        """The repo's present name upstream."""
        return self.snapshot.repo

    @property
    def sha(self) -> str:
        """The commit."""
        return self.snapshot.sha

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> list[RemoteFile]:
        """The files that the store does not have."""
        return [file for file in self.files if file.path not in self.stored]


def upstream(settings: Settings, folder: Path | None = None) -> Upstream:
    """The configured upstream, or a local folder that holds one repo."""
    if folder is not None:
        return LocalUpstream(folder, settings.allow_pickle)
    return HttpUpstream(settings.upstream_url, settings.hf_token, settings.upstream_hosts)


def plan(
    settings: Settings,
    repo: str,
    revision: str = "main",
    folder: Path | None = None,
    *,
    cancelled: Cancel = never,
) -> Plan:
    """Look at a repo and decide what to take. No weights are fetched, only their headers.

    Raises a HubError with cause and next step when it cannot or should not be mirrored.
    """
    names.check_name(repo)
    names.check_foreign(repo, settings.namespace)
    source = upstream(settings, folder)
    try:
        snapshot = source.snapshot(repo, revision, cancelled)
        names.check_foreign(snapshot.repo, settings.namespace)
        reader = _Reader(source, snapshot, cancelled)
        files = intake.choose(snapshot.repo, snapshot.files, reader.document, settings.allow_pickle)
        for file in files:
            names.check_path(file.path)
        known, model = reader.look(files, settings.mirror_parts)
    finally:
        source.close()
    _check_parameters(settings, snapshot, known)
    made = Plan(snapshot, files, known, model, _stored(settings, files), folder)
    _check_space(settings, made)
    return made


def mirror(
    settings: Settings,
    plan: Plan,
    *,
    report: Progress,
    cancelled: Cancel = never,
    guard: Callable[[Session], None] | None = None,
) -> str:
    """Carry a plan out; return the commit. The repo's old commit is served until it is done.

    `report` gets bytes done, bytes in all and a sentence. `guard` is called first in the
    transaction that makes the commit visible, and may raise to prevent it. Raises Cancelled, or a
    HubError.
    """
    store = BlobStore(settings.blobs)
    # Again: hours may lie between a plan and its turn.
    stored = _stored(settings, plan.files)
    missing = [file for file in plan.files if file.path not in stored]
    have = plan.size - sum(file.size for file in missing)
    what = f"Fetching {len(missing)} of {len(plan.files)} files" if missing else "Nothing is new"

    def tell(done: int) -> None:
        there = min(have + done, plan.size)
        report(there, plan.size, f"{what}: {size(there)} of {size(plan.size)}")

    tell(0)
    if plan.folder is not None:
        local = LocalUpstream(plan.folder, settings.allow_pickle)
        stored |= _copy(local, store, missing, tell, cancelled)
    elif missing:
        source = HttpUpstream(settings.upstream_url, settings.hf_token, settings.upstream_hosts)
        transfer = Transfer(
            source, plan.snapshot, store, settings.data / "partial", parallel=settings.mirror_parts
        )
        try:
            by_key = transfer.run(missing, tell, cancelled)
        finally:
            source.close()
        stored |= {file.path: by_key[key(file)] for file in missing}
    if cancelled():
        raise Cancelled
    _publish(settings, plan, stored, guard)
    report(plan.size, plan.size, f"{plan.repo} is mirrored at {plan.sha}")
    return plan.sha


class _Reader:
    """Reads the small documents of a snapshot and the headers of its weights."""

    def __init__(self, source: Upstream, snapshot: Snapshot, cancelled: Cancel) -> None:
        self.source = source
        self.snapshot = snapshot
        self.cancelled = cancelled

    def look(self, files: Sequence[RemoteFile], parallel: int) -> tuple[Facts, Outline]:
        """The facts and the outline of the model that these files make."""
        paths = [file.path for file in files]
        weights = [file for file in files if file.path.endswith(".safetensors")]
        with ThreadPoolExecutor(parallel) as pool:
            headers = dict(
                zip((w.path for w in weights), pool.map(self.header, weights), strict=True)
            )
        config = self.json("config.json", paths)
        if config is None:
            raise Unprocessable(
                "bad_config",
                f"config.json of {self.snapshot.repo} is not a JSON object",
                "The file is damaged: tell the model's owner",
            )
        card = self.document("README.md") if "README.md" in paths else b""
        known = facts(
            config,
            headers,
            card.decode(errors="replace"),
            paths,
            self.json("generation_config.json", paths),
            self.json("tokenizer_config.json", paths),
        )
        sizes = {file.path: file.size for file in files}
        return known, outline(config, sizes, headers.values(), known.parameters)

    def header(self, file: RemoteFile) -> Header:
        """The header of a safetensors file, checked against the size of the whole."""
        start = self.read(file.path, min(HEADER_GUESS, file.size))
        needed = 8 + safetensors.header_length(start, file.size, file.path)
        if needed > len(start):
            start += self.source.read(self.snapshot, file.path, len(start), needed, self.cancelled)
        return safetensors.parse_header(start, size=file.size, name=file.path)

    def json(self, path: str, paths: Sequence[str]) -> dict[str, Any] | None:
        """A document that is a JSON object; None when it is not there or is something else."""
        if path not in paths:
            return None
        try:
            found = json.loads(self.document(path))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def document(self, path: str) -> bytes:
        """A whole small file."""
        file = self.snapshot.file(path)
        size = file.size if file else 0
        if size > MAX_DOCUMENT:
            raise Unprocessable(
                "document_too_large",
                f"{path} has {size} bytes, {MAX_DOCUMENT} are allowed for such a file",
                "The repo is not what it seems: tell its owner",
            )
        return self.read(path, size)

    def read(self, path: str, end: int) -> bytes:
        return self.source.read(self.snapshot, path, 0, end, self.cancelled)


def _check_parameters(settings: Settings, snapshot: Snapshot, known: Facts) -> None:
    if known.parameters is not None and known.parameters > settings.max_parameters:
        raise TooLarge(
            "model_too_large",
            f"{snapshot.repo} has {known.parameters} parameters, this hub mirrors models of up to "
            f"{settings.max_parameters}",
            "The operator can raise HUB_MAX_PARAMETERS",
        )


def _check_space(settings: Settings, plan: Plan) -> None:
    settings.data.mkdir(parents=True, exist_ok=True)
    partial = settings.data / "partial"
    missing = {key(file): file for file in plan.missing}
    needed = sum(max(0, file.size - _reserved(partial / name)) for name, file in missing.items())
    with db.reading(settings.database) as session:
        disk = space.available(settings, session)
    if needed * MARGIN > disk.left:
        raise NoSpace(
            "disk_too_small",
            f"{plan.repo} needs {size(int(needed * MARGIN))} of disk, and {disk}",
            "Free some space with `slmhub gc`, or move HUB_DATA to a larger disk",
        )


def _reserved(folder: Path) -> int:
    try:
        return (folder / "bytes").stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _stored(settings: Settings, files: Sequence[RemoteFile]) -> dict[str, Stored]:
    """What the store has of these files, by path: large ones by SHA-256, small ones by git's id.

    Raises UpstreamFailed (size_mismatch): nothing is asked of upstream for these, so what it lists
    is held against what is here.
    """
    store = BlobStore(settings.blobs)
    found = {
        file.path: Stored(file.sha256, file.size, lfs_pointer_sha1(file.sha256, file.size))
        for file in files
        if file.sha256 and store.has(file.sha256)
    }
    for file in files:
        if file.path in found and (there := store.size(file.sha256 or "")) != file.size:
            raise size_mismatch(file, there)
    small = {file.git_sha1: file for file in files if not file.sha256 and file.git_sha1}
    with db.reading(settings.database) as session:
        by_id = _small(session, sorted(small))
    for file in files:
        known = by_id.get(file.git_sha1 or "")
        if not file.sha256 and known and known.size == file.size and store.has(known.sha256):
            found[file.path] = known
    return found


def _small(session: Session, ids: list[str]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for at in range(0, len(ids), 500):
        query = (
            select(File)
            .join(Blob, col(Blob.sha256) == File.sha256)
            .where(
                col(File.git_sha1).in_(ids[at : at + 500]),
                col(File.lfs).is_(False),
                col(Blob.quarantined).is_(False),
            )
        )
        for row in session.exec(query):
            found[row.git_sha1] = Stored(row.sha256, row.size, row.git_sha1)
    return found


def _copy(
    source: LocalUpstream,
    store: BlobStore,
    files: Sequence[RemoteFile],
    tell: Callable[[int], None],
    cancelled: Cancel,
) -> dict[str, Stored]:
    """Take the files of a local folder into the store."""
    stored: dict[str, Stored] = {}
    done = 0
    for file in files:
        if cancelled():
            raise Cancelled
        found = store.add_file(source.path(file.path), lfs=file.sha256 is not None)
        wanted, actual = (
            (file.sha256, found.sha256) if file.sha256 else (file.git_sha1, found.git_sha1)
        )
        if wanted != actual:
            raise DigestMismatch(file.path, wanted or "", actual)
        stored[file.path] = found
        done += file.size
        tell(done)
    return stored


def _publish(
    settings: Settings,
    plan: Plan,
    stored: dict[str, Stored],
    guard: Callable[[Session], None] | None,
) -> None:
    entries = [
        repos.Entry(
            path=file.path,
            sha256=stored[file.path].sha256,
            size=stored[file.path].size,
            git_sha1=stored[file.path].git_sha1,
            lfs=file.sha256 is not None,
        )
        for file in plan.files
    ]
    main = plan.snapshot.revision == "main"
    named_by_id = plan.sha.startswith(plan.snapshot.revision)
    with db.writing(settings.database) as session:
        if guard is not None:
            guard(session)
        repos.add_commit(
            session,
            name=plan.repo,
            kind="mirrored",
            sha=plan.sha,
            entries=entries,
            message=f"Mirrored from {plan.snapshot.endpoint}",
            facts=plan.facts.as_dict(),
            move_main=main,
            ref=None if main or named_by_id else plan.snapshot.revision,
            upstream=plan.snapshot.endpoint,
        )
