"""What the catalogue counts and groups, beside the rows that listing.page pages through."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, tuple_
from sqlmodel import Session, col, select

from hub.models import ACTIVE, Artefact, Job, Repo


@dataclass(frozen=True)
class Made:
    """How many variants of a source exist in one format."""

    plugin: str
    variants: int


def tiers(
    session: Session, *, kind: str, q: str | None = None, license: str | None = None
) -> dict[str, int]:
    """How many repos of each tier a search finds, whatever tier it asks for."""
    query = select(col(Repo.tier), func.count()).where(col(Repo.kind) == kind)
    for word in (q or "").split():
        query = query.where(func.lower(col(Repo.name)).contains(word.lower(), autoescape=True))
    if license is not None:
        query = query.where(col(Repo.license) == license)
    return {tier or "": number for tier, number in session.exec(query.group_by(col(Repo.tier)))}


def licenses(session: Session, kind: str) -> list[tuple[str, int]]:
    """The licences of all repos of a kind with their numbers, the most frequent first."""
    number = func.count()
    rows = session.exec(
        select(col(Repo.license), number)
        .where(col(Repo.kind) == kind, col(Repo.license).is_not(None))
        .group_by(col(Repo.license))
        .order_by(number.desc(), col(Repo.license))
        .limit(100)
    )
    return [(str(name), count) for name, count in rows]


def made(session: Session, sources: Collection[str]) -> dict[str, list[Made]]:
    """The formats that there are of each source, whatever its commit."""
    found: dict[str, list[Made]] = {}
    rows = session.exec(
        select(
            col(Artefact.source),
            col(Artefact.plugin),
            func.count(col(Artefact.variant).distinct()),
        )
        .where(col(Artefact.source).in_(sources))
        .group_by(col(Artefact.source), col(Artefact.plugin))
        .order_by(col(Artefact.plugin))
    )
    for source, plugin, variants in rows:
        found.setdefault(source, []).append(Made(plugin, variants))
    return found


def existing(session: Session, names: Iterable[str]) -> set[str]:
    """Those of the names that are repos here."""
    return set(session.exec(select(col(Repo.name)).where(col(Repo.name).in_(list(names)))))


def mirroring(session: Session) -> dict[str, Job]:
    """The jobs that are mirroring right now, by repo."""
    rows = session.exec(
        select(Job).where(col(Job.kind) == "mirror", col(Job.state).in_(ACTIVE)).limit(200)
    )
    return {job.repo: job for job in rows}


def made_from(session: Session, commits: Mapping[str, str]) -> Mapping[str, list[Artefact]]:
    """By source, the newest artefact of each plugin and variant that was made from its commit."""
    pair = tuple_(col(Artefact.source), col(Artefact.source_commit))
    return _newest(session, pair.in_(list(commits.items())), "source", "plugin", "variant")


def published_in(session: Session, names: Collection[str]) -> Mapping[str, list[Artefact]]:
    """By derived repo, the newest artefact of each variant that was published in it."""
    return _newest(session, col(Artefact.repo).in_(names), "repo", "variant")


def _newest(
    session: Session, condition: ColumnElement[bool], *key: str
) -> Mapping[str, list[Artefact]]:
    """The newest of the artefacts that have the same key, by the first part of it."""
    rows = session.exec(select(Artefact).where(condition).order_by(col(Artefact.id)))
    newest = {tuple(getattr(row, part) for part in key): row for row in rows}
    found: dict[str, list[Artefact]] = defaultdict(list)
    for name, row in newest.items():
        found[name[0]].append(row)
    return found


def latest_jobs(session: Session, repo: str, commit: str) -> Mapping[tuple[str, str], Job]:
    """The newest conversion job of each plugin and variant of a commit, among the last 200."""
    rows = session.exec(
        select(Job)
        .where(col(Job.repo) == repo, col(Job.kind) == "convert", col(Job.commit) == commit)
        .order_by(col(Job.id).desc())
        .limit(200)
    )
    found: dict[tuple[str, str], Job] = {}
    for job in rows:
        for variant in job.request.get("variants", []):
            found.setdefault((job.plugin or "", variant), job)
    return found


def state_counts(session: Session, repo: str | None = None) -> dict[str, int]:
    """How many jobs, of a repo or of all, are in each state."""
    query = select(col(Job.state), func.count()).group_by(col(Job.state))
    if repo is not None:
        query = query.where(col(Job.repo) == repo)
    return dict(session.exec(query).all())
