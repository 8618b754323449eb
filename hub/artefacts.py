"""Publishing: what a plugin made becomes a commit of the derived repo, once and whole.

Blobs first, then one transaction: it proves that the job is still this worker's, makes the commit,
and writes the artefact down. Either all of it is visible or nothing.
"""

import errno
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from hub import cards, catalogue, db, formats, jobs, leases, names, repos
from hub.blobs import BlobStore, Stored
from hub.config import Settings
from hub.errors import Conflict
from hub.formats import Format
from hub.leases import Claim
from hub.models import Artefact, Blob, Commit, Repo
from hub.repos import Entry

CARD = "README.md"
LARGE = 1024**2
_LICENSES = ("license", "licence", "copying", "notice", "use_policy")
_CARRIED = (
    "parameters",
    "active_parameters",
    "tier",
    "architecture",
    "model_type",
    "context_length",
    "vocabulary",
    "license",
    "languages",
    "pipeline_tag",
    "has_chat_template",
)


@dataclass(frozen=True)
class Source:
    """The commit that is converted: what it holds and what is known of it."""

    repo: str
    commit: str
    entries: Sequence[Entry]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """One variant as the plugin left it: all files of `folder`, which are moved away from there."""

    variant: str
    folder: Path
    check: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def files(self) -> list[Path]:
        """The files, in the order of their paths."""
        return sorted(path for path in self.folder.rglob("*") if not path.is_dir())


@dataclass(frozen=True)
class Recipe:
    """How the variants of one job are made."""

    options: Mapping[str, Any]
    tools: Mapping[str, str]
    sandbox: str


class _Moved(Exception):
    """Someone else published in the same repo since the card was written."""


def artefact_key(
    source: str, commit: str, fmt: Format, variant: str, options: Mapping[str, Any]
) -> str:
    """The name of a result before it is made: 64 hex digits over all that decides it."""
    return jobs.request_key(
        "artefact", source, commit, fmt.name, fmt.version, fmt.lock_digest, variant, dict(options)
    )


def published(session: Session, keys: Iterable[str]) -> dict[str, Artefact]:
    """Those of the artefacts that are there and whole, by key."""
    wanted = list(keys)
    rows = session.exec(
        select(Artefact)
        .join(Repo, col(Repo.name) == col(Artefact.repo))
        .join(
            Commit,
            (col(Commit.repo_id) == col(Repo.id)) & (col(Commit.sha) == col(Artefact.commit)),
        )
        .where(col(Artefact.key).in_(wanted))
    ).all()
    digests = {file["sha256"] for row in rows for file in row.files}
    damaged = set(
        session.exec(
            select(Blob.sha256).where(col(Blob.sha256).in_(digests), col(Blob.quarantined))
        )
    )
    return {row.key: row for row in rows if not damaged & {file["sha256"] for file in row.files}}


def made(session: Session, source: Source, fmt: Format) -> dict[str, list[Entry]]:
    """What this plugin, with this version and pins, made of a commit: files by variant.

    The latest of each variant, whole, whatever its options.
    """
    query = (
        select(Artefact)
        .where(
            col(Artefact.source) == source.repo,
            col(Artefact.source_commit) == source.commit,
            col(Artefact.plugin) == fmt.name,
            col(Artefact.plugin_version) == fmt.version,
            col(Artefact.lock_digest) == fmt.lock_digest,
        )
        .order_by(col(Artefact.id))
    )
    rows = {row.variant: row.key for row in session.exec(query)}
    return {
        row.variant: [Entry(one["path"], one["sha256"], one["size"], "") for one in row.files]
        for row in published(session, rows.values()).values()
    }


def publish(
    settings: Settings, claim: Claim, fmt: Format, source: Source, recipe: Recipe, made: Made
) -> Artefact:
    """Publish a variant in its derived repo; raises leases.LostLease when the job is not ours.

    One that somebody else published meanwhile is returned as it is.
    """
    store = BlobStore(settings.blobs)
    files = [_store(store, made.folder, path) for path in made.files()]
    name = formats.derived_repo(fmt, settings, source.repo, made.variant)
    artefact = Artefact(
        key=artefact_key(source.repo, source.commit, fmt, made.variant, recipe.options),
        job_id=claim.id,
        source=source.repo,
        source_commit=source.commit,
        plugin=fmt.name,
        plugin_version=fmt.version,
        lock_digest=fmt.lock_digest,
        variant=made.variant,
        options=dict(recipe.options),
        repo=name,
        commit="",
        files=[{"path": one.path, "size": one.size, "sha256": one.sha256} for one in files],
        size=sum(one.size for one in files),
        check_result=dict(made.check),
        tools=dict(recipe.tools),
        sandbox=recipe.sandbox,
        seconds=made.seconds,
    )
    while True:
        try:
            return _publish(settings, claim, fmt, source, store, artefact, files)
        except _Moved:
            continue


@leases.patiently
def _publish(
    settings: Settings,
    claim: Claim,
    fmt: Format,
    source: Source,
    store: BlobStore,
    artefact: Artefact,
    files: Sequence[Entry],
) -> Artefact:
    name = artefact.repo
    with db.reading(settings.database) as session:
        if there := published(session, [artefact.key]).get(artefact.key):
            return there
        parent, tree = _present(session, name)
        current = _whole(catalogue.published_in(session, [name])[name], tree)
    current = [row for row in current if row.variant != artefact.variant]
    _check_clash(artefact, current)
    entries = _tree(tree, current, source, files)
    card = cards.card(settings, fmt, source.facts, sorted_as(fmt, [*current, artefact]))
    stored = store.add_bytes(card.encode())
    entries[CARD] = Entry(CARD, stored.sha256, stored.size, stored.git_sha1)
    message = f"{artefact.variant} of {source.repo}@{source.commit[:12]}"
    unchanged = parent is not None and entries == tree
    sha = parent if parent and unchanged else repos.commit_sha(parent, message, entries.values())
    with db.writing(settings.database) as session:
        leases.fence(session, claim)
        _lock(session, name)
        if _main(session, name) != parent:
            raise _Moved
        repos.add_commit(
            session,
            name=name,
            kind="derived",
            sha=sha,
            entries=list(entries.values()),
            message=message,
            parent=parent,
            facts={key: source.facts[key] for key in _CARRIED if key in source.facts},
            source=source.repo,
            plugin=fmt.name,
        )
        return _write(session, artefact, sha)


def _check_clash(artefact: Artefact, others: Iterable[Artefact]) -> None:
    """Refuse a file that would take the place of another variant's: both could not be whole."""
    ours = {file["path"]: file["sha256"] for file in artefact.files}
    for row in others:
        if (row.plugin_version, row.lock_digest) != (artefact.plugin_version, artefact.lock_digest):
            continue  # made by an earlier plugin, whose files give way
        for file in row.files:
            if ours.get(file["path"], file["sha256"]) != file["sha256"]:
                raise Conflict(
                    "bad_output",
                    f"{artefact.variant} has another {file['path']} than {row.variant}, and both "
                    f"are published in {artefact.repo}.",
                    "This is a fault of the plugin: files of the same path must not depend on the "
                    "variant or its options.",
                )


def _whole(rows: Iterable[Artefact], tree: Mapping[str, Entry]) -> list[Artefact]:
    """The artefacts whose files are all in this tree."""
    there = {path: entry.sha256 for path, entry in tree.items()}
    return [
        row for row in rows if all(there.get(one["path"]) == one["sha256"] for one in row.files)
    ]


def sorted_as(fmt: Format, rows: Iterable[Artefact]) -> list[Artefact]:
    """The artefacts in the manifest's order of their variants."""
    order = {variant.name: place for place, variant in enumerate(fmt.variants)}
    return sorted(rows, key=lambda row: (order.get(row.variant, len(order)), row.variant))


def _store(store: BlobStore, folder: Path, path: Path) -> Entry:
    name = names.check_path(path.relative_to(folder).as_posix())
    if name == CARD:
        raise Conflict(
            "bad_output", f"The plugin wrote a {CARD}.", "The hub writes the card: leave it out."
        )
    if path.is_symlink() or not path.is_file():
        raise Conflict(
            "bad_output", f"{path.name} is not a regular file.", "Files alone are published."
        )
    large = path.stat().st_size > LARGE
    stored = _move(store, path, large)
    return Entry(name, stored.sha256, stored.size, stored.git_sha1, lfs=large)


def _move(store: BlobStore, path: Path, lfs: bool) -> Stored:
    """Take a file into the store without a copy, where both are on one file system."""
    staged = store.stage()
    try:
        path.rename(staged)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return store.add_file(path, lfs=lfs)
    return store.adopt(staged, lfs=lfs)


def _present(session: Session, name: str) -> tuple[str | None, dict[str, Entry]]:
    """The derived repo's main and its files; None and nothing when it is new."""
    main = _main(session, name)
    if main is None:
        return None, {}
    repo = repos.find(session, name)
    files = repos.files(session, repos.resolve(session, repo, main))
    return main, {
        file.path: Entry(file.path, file.sha256, file.size, file.git_sha1, file.lfs)
        for file in files
    }


def _main(session: Session, name: str) -> str | None:
    return session.exec(select(Repo.main).where(col(Repo.name) == name)).one_or_none()


def _tree(
    tree: Mapping[str, Entry], others: Sequence[Artefact], source: Source, files: Sequence[Entry]
) -> dict[str, Entry]:
    """The files of the next commit: the other variants', this one's, and the source's licence."""
    kept = {file["path"] for row in others for file in row.files}
    entries = {path: entry for path, entry in tree.items() if path in kept}
    for entry in source.entries:
        if "/" not in entry.path and entry.path.lower().startswith(_LICENSES):
            entries[entry.path] = entry
    for entry in files:
        entries[entry.path] = entry
    return entries


def _lock(session: Session, name: str) -> None:
    """One publisher at a time in a repo, also while it is new and has no row to lock."""
    if session.get_bind().dialect.name == "postgresql":
        session.exec(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0)))).one()


def _write(session: Session, artefact: Artefact, sha: str) -> Artefact:
    """Insert the artefact; one of the same key whose files were lost is replaced."""
    row = session.exec(select(Artefact).where(col(Artefact.key) == artefact.key)).one_or_none()
    values = artefact.model_dump(exclude={"id", "created_at"}) | {"commit": sha}
    if row is None:
        row = Artefact(**values)
        session.add(row)
    else:
        row.sqlmodel_update(values | {"created_at": time.time()})
    session.flush()
    return row
