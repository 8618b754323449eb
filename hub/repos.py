"""Commits and files of repos as rows. Every function takes the session of its caller's transaction.

Blobs are in the store before a commit names them, and a commit is written in one transaction: one
that is visible is complete. Commits never change.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from hub.errors import Conflict, InvalidRequest, NotFound, Unprocessable
from hub.models import Blob, Commit, File, Ref, Removal, Repo
from hub.names import check_name, check_path, check_revision, shown

_SHA1 = re.compile(r"[0-9a-f]{40}")
_PREFIX = re.compile(r"[0-9a-f]{7,40}")
_FACT_COLUMNS = (
    "tier",
    "parameters",
    "active_parameters",
    "architecture",
    "license",
    "context_length",
)


@dataclass(frozen=True)
class Entry:
    """One path of a commit that is to be made, and the blob it names."""

    path: str
    sha256: str
    size: int
    git_sha1: str
    lfs: bool = False


def commit_sha(parent: str | None, message: str, entries: Iterable[Entry]) -> str:
    """The id of a commit that the hub makes itself, 40 hex digits: a digest of all it says."""
    files = sorted((entry.path, entry.sha256) for entry in entries)
    text = json.dumps([parent, message, files], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _insert_new(session: Session, table: type[SQLModel], rows: list[dict[str, Any]]) -> None:
    """Insert the rows whose key is not there yet, whoever else inserts them at the same time."""
    if not rows:
        return
    make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(make(table).on_conflict_do_nothing(), rows)


def _check_entries(entries: Sequence[Entry]) -> None:
    paths = {check_path(entry.path) for entry in entries}
    if len(paths) != len(entries):
        raise Unprocessable("bad_commit", "A commit names a path twice", "Name every path once")
    for path in paths:
        folder = path
        while folder := folder.rpartition("/")[0]:
            if folder in paths:
                raise Unprocessable(
                    "bad_commit",
                    f"{shown(folder)} is both a file and a folder of one commit",
                    "Rename one of them",
                )


def add_commit(
    session: Session,
    *,
    name: str,
    kind: str,
    sha: str,
    entries: Sequence[Entry],
    message: str = "",
    parent: str | None = None,
    facts: dict[str, Any] | None = None,
    move_main: bool = True,
    ref: str | None = None,
    **repo_columns: Any,
) -> Commit:
    """Make a commit visible, and its repo where that is new.

    All blobs are in the store already. `facts` go to the commit, and with `move_main` also to the
    repo and its columns; `repo_columns` (source, plugin, upstream, …) are set on the repo. `ref` is
    a further name for the commit. A new repo's `main` is its first commit in any case. The same
    commit again changes nothing, except that a mirrored one may gain files it was taken without;
    one whose files differ raises Conflict.
    """
    check_name(name)
    _check_entries(entries)
    if not _SHA1.fullmatch(sha):
        raise InvalidRequest("bad_commit", f"{shown(sha)} is not a commit id", "40 hex digits")
    now = time.time()
    created = {"name": name, "kind": kind, "main": sha, "facts": {}}
    _insert_new(session, Repo, [{**created, "created_at": now, "updated_at": now}])
    repo = session.exec(select(Repo).where(Repo.name == name).with_for_update()).one()
    if repo.kind != kind:
        raise Conflict(
            "repo_exists", f"{name} is a {repo.kind} repo already", "Choose another name"
        )
    commit = session.exec(
        select(Commit).where(Commit.repo_id == repo.id, Commit.sha == sha)
    ).one_or_none()
    if commit is None:
        for removal in session.exec(
            select(Removal).where(Removal.name == name, Removal.sha == sha)
        ):
            _check_unchanged(name, sha, removal.files, entries)
        commit = Commit(
            repo_id=_id(repo), sha=sha, parent=parent, message=message, facts=facts or {}
        )
        session.add(commit)
        session.flush()
        new = list(entries)
    else:
        new = _gained(session, repo, commit, entries)
        if facts is not None:
            commit.facts = facts
    _insert_files(session, _id(commit), entries, new)
    if ref is not None and ref != "main" and ref != sha:
        _set_ref(session, _id(repo), check_revision(ref), sha)
    if move_main or repo.main == sha:
        repo.main = sha
        if facts is not None:
            repo.facts = facts
            for column in _FACT_COLUMNS:
                setattr(repo, column, facts.get(column))
    for column, value in repo_columns.items():
        setattr(repo, column, value)
    repo.updated_at = now
    session.flush()
    return commit


def _id(row: Repo | Commit) -> int:
    assert row.id is not None
    return row.id


def _gained(session: Session, repo: Repo, commit: Commit, entries: Sequence[Entry]) -> list[Entry]:
    """The entries that the commit does not have yet; Conflict where it has others."""
    have = {file.path: file.sha256 for file in files(session, commit)}
    _check_unchanged(repo.name, commit.sha, have, entries)
    new = [entry for entry in entries if entry.path not in have]
    if new and repo.kind != "mirrored":
        raise Conflict(
            "commit_differs",
            f"{repo.name} has the commit {commit.sha} without {new[0].path}",
            "Commits never change: make a new one",
        )
    return new


def _check_unchanged(
    name: str, sha: str, have: Mapping[str, str], entries: Iterable[Entry]
) -> None:
    for entry in entries:
        if have.get(entry.path, entry.sha256) != entry.sha256:
            raise Conflict(
                "commit_differs",
                f"{entry.path} of {name} at {sha} has the digest {have[entry.path]} here, "
                f"not {entry.sha256}",
                "Commits never change: the source is not to be trusted, or one of them is damaged",
            )


def _insert_files(
    session: Session, commit_id: int, entries: Sequence[Entry], new: Sequence[Entry]
) -> None:
    now = time.time()
    # In one order everywhere, so that two transactions cannot wait for each other.
    blobs = {entry.sha256: entry.size for entry in sorted(entries, key=lambda entry: entry.sha256)}
    _insert_new(
        session,
        Blob,
        [
            {
                "sha256": sha256,
                "size": size,
                "created_at": now,
                "checked_at": now,
                "quarantined": False,
            }
            for sha256, size in blobs.items()
        ],
    )
    for some in _portions(list(blobs), 500):
        # The caller has just put good bytes there.
        session.execute(
            update(Blob)
            .where(col(Blob.sha256).in_(some), col(Blob.quarantined))
            .values(quarantined=False, checked_at=now)
        )
    session.add_all(
        File(
            commit_id=commit_id,
            path=entry.path,
            sha256=entry.sha256,
            size=entry.size,
            git_sha1=entry.git_sha1,
            lfs=entry.lfs,
        )
        for entry in new
    )
    session.flush()


def _portions(items: list[str], size: int) -> Iterable[list[str]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _set_ref(session: Session, repo_id: int, name: str, sha: str) -> None:
    row = session.exec(select(Ref).where(Ref.repo_id == repo_id, Ref.name == name)).one_or_none()
    if row is None:
        session.add(Ref(repo_id=repo_id, name=name, sha=sha))
    else:
        row.sha = sha


def find(session: Session, name: str) -> Repo:
    """The repo of this name. NotFound (repo_not_found)."""
    repo = session.exec(select(Repo).where(Repo.name == check_name(name))).one_or_none()
    if repo is None:
        raise NotFound(
            "repo_not_found",
            f"The hub has no repo {name}",
            "Mirror it first, or look at the catalogue for what there is",
        )
    return repo


def resolve(session: Session, repo: Repo, revision: str) -> Commit:
    """The commit a revision names: `main`, another ref, a commit id or the first 7 digits or more
    of one. NotFound (revision_not_found)."""
    name = check_revision(revision).removeprefix("refs/heads/").removeprefix("refs/tags/")
    sha: str | None = None
    if name == "main":
        sha = repo.main
    else:
        names = {revision, name}
        refs = session.exec(
            select(Ref).where(Ref.repo_id == repo.id, col(Ref.name).in_(names)).order_by(Ref.name)
        ).all()
        sha = refs[0].sha if refs else None
    if sha is None and _PREFIX.fullmatch(name):
        sha = name
    if sha is not None:
        found = session.exec(
            select(Commit)
            .where(Commit.repo_id == repo.id, col(Commit.sha).startswith(sha))
            .limit(2)
        ).all()
        if len(found) == 1:
            return found[0]
    raise NotFound(
        "revision_not_found",
        f"{repo.name} has no revision {revision} on this hub",
        f"Use main, or mirror it with `slmhub mirror {repo.name}@{revision}`",
    )


def files(session: Session, commit: Commit) -> list[File]:
    """The files of a commit, by path."""
    query = select(File).where(File.commit_id == commit.id).order_by(File.path)
    return list(session.exec(query).all())


def file(session: Session, commit: Commit, path: str) -> File:
    """One file of a commit. NotFound (entry_not_found)."""
    query = select(File).where(File.commit_id == commit.id, File.path == check_path(path))
    found = session.exec(query).one_or_none()
    if found is None:
        raise NotFound(
            "entry_not_found",
            f"The commit {commit.sha} has no file {path}",
            "Look at the list of its files",
        )
    return found


def remove(session: Session, name: str) -> None:
    """Delete a repo with its commits, and keep on record what they were: the same commit may come
    back, another under its id may not. Blobs stay until the collector finds them unused."""
    repo = find(session, name)
    for commit in session.exec(select(Commit).where(Commit.repo_id == repo.id)):
        digests = {file.path: file.sha256 for file in files(session, commit)}
        session.add(Removal(name=repo.name, kind=repo.kind, sha=commit.sha, files=digests))
    session.delete(repo)
    session.flush()
