"""Requests: what is asked for is checked in a second, and becomes a job."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlmodel import col, select

from hub import db, jobs, prospects, space
from hub.config import Settings
from hub.errors import InvalidRequest, Unprocessable
from hub.local import readable
from hub.models import Job, JobState
from hub.names import check_foreign, check_name, check_revision
from hub.prospects import Order


def request_mirror(
    settings: Settings, repo: str, revision: str = "main", folder: Path | None = None
) -> Job:
    """Queue the mirroring of a repo at a revision, from upstream or from a local folder.

    The same request returns the job that is on its way already. One that has ended is no obstacle:
    upstream may have moved.
    """
    if "/" not in repo:
        raise InvalidRequest(
            "bad_repo_name",
            f"{repo[:80]!r} has no organisation.",
            "Write org/name; old models without one have moved: gpt2 is openai-community/gpt2.",
        )
    check_name(repo)
    check_revision(revision)
    check_foreign(repo, settings.namespace)
    if folder is not None and not (folder.is_absolute() and readable(folder)):
        raise Unprocessable(
            "no_such_folder",
            f"There is no folder {str(folder)[:200]!r} on the hub's machine that it may read.",
            "Give the absolute path of a folder that holds a model.",
        )
    origin = str(folder) if folder is not None else settings.upstream_url
    return jobs.submit(
        settings,
        Job(
            kind="mirror",
            request_key=jobs.request_key("mirror", origin, repo, revision),
            repo=repo,
            revision=revision,
            request={"folder": str(folder)} if folder is not None else {},
        ),
    )


def request_conversion(
    settings: Settings,
    repo: str,
    revision: str = "main",
    plugin: str = "",
    variants: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> Job:
    """Queue a conversion; the same request returns the same job, or a done one at once.

    Refused here is what cannot succeed, with the figures (hub/prospects.py).
    """
    order = prospects.order(settings, repo, revision, plugin, variants, options)
    sizes: Mapping[str, int] = {}
    if order.twin is None and order.missing:
        prospect = prospects.weigh(settings, order)
        if prospect.refusal is not None:
            raise prospect.refusal
        sizes = prospect.sizes
    return accept(settings, order, sizes)


def accept(settings: Settings, order: Order, sizes: Mapping[str, int]) -> Job:
    """Queue an order that was weighed and not refused; the same order returns the same job.

    `sizes` are the bytes of its variants, for which later requests have to leave space.
    """
    if order.twin is not None:
        return order.twin
    if not order.missing:
        return _already_done(settings, order.job)
    request = order.job.request | {space.SIZES: dict(sizes)}
    return jobs.submit(settings, Job.model_validate(order.job.model_dump() | {"request": request}))


def again(settings: Settings, job_id: int) -> Job:
    """Request once more what a job was for."""
    with db.reading(settings.database) as session:
        job = jobs.get(session, job_id)
    if job.kind == "mirror":
        folder = job.request.get("folder")
        return request_mirror(settings, job.repo, job.revision, Path(folder) if folder else None)
    return request_conversion(
        settings,
        job.repo,
        job.revision,
        job.plugin or "",
        job.request["variants"],
        job.request["options"],
    )


def _already_done(settings: Settings, job: Job) -> Job:
    """The done job of this request; where none is known, one is written down now."""
    with db.writing(settings.database) as session:
        earlier = session.exec(
            select(Job)
            .where(col(Job.request_key) == job.request_key, col(Job.state) == JobState.DONE)
            .order_by(col(Job.id).desc())
            .limit(1)
        ).one_or_none()
        if earlier is not None:
            return earlier
        now = time.time()
        job.state = JobState.DONE
        job.progress = 1.0
        job.started_at = job.finished_at = now
        session.add(job)
    return job
