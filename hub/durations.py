"""How long a conversion will take, from those that are finished: a range, or nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from hub.models import Artefact, Commit, File, Repo

LOOKED_AT = 200
"""The latest artefacts of a plugin that are looked at."""
ALIKE = 10
"""A model this many times as large, or as small, tells nothing: starting up has other shares."""
GB = 1e9


@dataclass(frozen=True)
class Finished:
    """One finished variant: the bytes of its source's weights, and the seconds it took."""

    variant: str
    weights: int
    seconds: float


def finished(session: Session, plugin: str) -> list[Finished]:
    """The latest artefacts of a plugin."""
    latest = (
        select(Artefact.variant, Artefact.source, Artefact.source_commit, Artefact.seconds)
        .where(col(Artefact.plugin) == plugin, col(Artefact.seconds) > 0)
        .order_by(col(Artefact.id).desc())
        .limit(LOOKED_AT)
        .subquery()
    )
    weights = (
        select(Repo.name, Commit.sha, func.sum(File.size).label("weights"))
        .join(Commit, col(Commit.repo_id) == col(Repo.id))
        .join(File, col(File.commit_id) == col(Commit.id))
        .where(
            col(File.path).endswith(".safetensors"),
            col(Repo.name).in_(select(latest.c.source)),
            col(Commit.sha).in_(select(latest.c.source_commit)),
        )
        .group_by(col(Repo.name), col(Commit.sha))
        .subquery()
    )
    rows = session.exec(
        select(latest.c.variant, weights.c.weights, latest.c.seconds).join(
            weights,
            (weights.c.name == latest.c.source) & (weights.c.sha == latest.c.source_commit),
        )
    )
    return [Finished(variant, int(size), float(seconds)) for variant, size, seconds in rows]


def expected(
    known: Iterable[Finished], variants: Sequence[str], weights: int
) -> tuple[float, float] | None:
    """The least and the most seconds that these variants of so many bytes of weights may take.

    From the seconds per GB of models between a tenth and ten times as large: of the same variant,
    else of all variants of the plugin. None where a variant has no such model to go by.
    """
    alike = [one for one in known if weights / ALIKE <= one.weights <= weights * ALIKE]
    if not alike or not variants:
        return None
    least = most = 0.0
    for variant in variants:
        same = [one for one in alike if one.variant == variant] or alike
        rates = [one.seconds / (one.weights / GB) for one in same if one.weights]
        if not rates:
            return None
        least += min(rates) * weights / GB
        most += max(rates) * weights / GB
    return least, most
