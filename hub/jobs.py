"""Jobs as their users see them: accepted, looked at, cancelled. The worker's side is hub/leases.py.

The database is the truth: a job is accepted when its row is committed. The message that follows
only wakes a worker up early.
"""

import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from hub import checks, db, queue
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest, NotFound
from hub.leases import clock
from hub.models import ACTIVE, Artefact, Job, JobState

log = logging.getLogger(__name__)

_LARGEST_ID = 2**31 - 1


def request_key(*parts: object) -> str:
    """The SHA-256 that the same request always has: 64 hex digits."""
    return sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def submit(settings: Settings, job: Job) -> Job:
    """Queue a job, or return the one that is already on its way for the same request."""
    while True:
        try:
            with db.writing(settings.database) as session:
                twin = active(session, job.request_key)
                if twin is not None:
                    return twin
                session.add(job)
            break
        except IntegrityError:
            # Two requests at once on PostgreSQL: the index let one in, and it is found now. The row
            # that was not written is made anew, as the failed one belongs to a closed session.
            job = Job.model_validate(job.model_dump(exclude={"id"}))
    assert job.id is not None
    if job.state == JobState.QUEUED:
        notify(settings, job.id)
    return job


def active(session: Session, key: str) -> Job | None:
    """The job that is on its way for a request, if any."""
    return session.exec(
        select(Job).where(col(Job.request_key) == key, col(Job.state).in_(ACTIVE))
    ).one_or_none()


def notify(settings: Settings, job_id: int) -> bool:
    """Wake a worker up for a job; False when Redis is away, and the reconciler will try again."""
    try:
        queue.ring(settings.redis, job_id)
    except queue.OperationalError as error:
        log.warning("job %d waits: Redis is away (%s)", job_id, error)
        return False
    with db.writing(settings.database) as session:
        session.connection().execute(
            update(Job).where(col(Job.id) == job_id).values(notified_at=clock(session))
        )
    return True


def get(session: Session, job_id: int) -> Job:
    """The job with this number; raises NotFound."""
    job = session.get(Job, job_id) if 0 < job_id <= _LARGEST_ID else None
    if job is None:
        raise NotFound(
            "job_not_found",
            f"There is no job {str(job_id)[:20]}.",
            "The list of jobs names those there are.",
        )
    return job


def listing(
    session: Session,
    *,
    state: str | None = None,
    kind: str | None = None,
    repo: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Job], str | None]:
    """Jobs, newest first, and the cursor of the next page; `state` may also be "active"."""
    query = select(Job).order_by(col(Job.id).desc()).limit(limit + 1)
    if state == "active":
        query = query.where(col(Job.state).in_(ACTIVE))
    elif state is not None:
        if state not in list(JobState):
            raise InvalidRequest(
                "unknown_state",
                f"There is no job state {state[:40]!r}.",
                f"One of: active, {', '.join(JobState)}.",
            )
        query = query.where(col(Job.state) == state)
    if kind is not None:
        query = query.where(col(Job.kind) == kind)
    if repo is not None:
        query = query.where(col(Job.repo) == repo)
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdigit() and int(cursor[:11]) <= _LARGEST_ID):
            raise InvalidRequest(
                "bad_cursor", "The cursor is not one that the hub gave out.", "Start without one."
            )
        query = query.where(col(Job.id) < int(cursor[:11]))
    rows = list(session.exec(query))
    more = str(rows[limit - 1].id) if len(rows) > limit else None
    return rows[:limit], more


def cancel(settings: Settings, job_id: int) -> Job:
    """End a job: a queued one at once, a running one as soon as its worker hears of it (1 s).

    Cancelling twice is no error; raises Conflict for a job that ended otherwise.
    """
    with db.writing(settings.database) as session:
        get(session, job_id)
        job = session.exec(select(Job).where(col(Job.id) == job_id).with_for_update()).one()
        session.refresh(job)
        if job.state == JobState.QUEUED:
            job.state = JobState.CANCELLED
            job.message = ""
            job.finished_at = clock(session)
        elif job.state in ACTIVE:
            job.message = "Cancelling"
        elif job.state != JobState.CANCELLED:
            raise Conflict(
                "job_ended",
                f"Job {job_id} is {job.state} already.",
                "A job that ended cannot be cancelled.",
            )
        job.cancel = True
    return job


def positions(session: Session, rows: Sequence[Job]) -> dict[int, int]:
    """The places in the queue, from 1, of those of the jobs that wait, by their numbers."""
    waiting = [job.id for job in rows if job.state == JobState.QUEUED]
    if not waiting:
        return {}
    place = func.row_number().over(order_by=col(Job.id)).label("place")
    queue = select(col(Job.id), place).where(col(Job.state) == JobState.QUEUED).subquery()
    found = session.exec(select(queue.c.id, queue.c.place).where(queue.c.id.in_(waiting)))
    return dict(found.all())


def log_path(settings: Settings, job_id: int) -> Path:
    """The file of a job's log; it need not exist yet."""
    return settings.logs / f"{int(job_id)}.log"


def artefacts(session: Session, job: Job) -> list[Artefact]:
    """What a job asked for and is there by now, in the order of its variants."""
    found = _artefacts(session, [job])
    return [found[key] for key in _keys(job) if key in found]


def _artefacts(session: Session, rows: Sequence[Job]) -> dict[str, Artefact]:
    """What any of the jobs asked for and is there by now, by key."""
    keys = {key for job in rows for key in _keys(job)}
    if not keys:
        return {}
    found = session.exec(select(Artefact).where(col(Artefact.key).in_(keys)))
    return {row.key: row for row in found}


def _keys(job: Job) -> list[str]:
    """The artefact keys of a conversion, in the order of its variants."""
    return list(job.request.get("keys", {}).values())


def describe(session: Session, settings: Settings, job: Job) -> dict[str, Any]:
    """The job as the REST API shows it. Sizes in bytes, times in seconds since 1970."""
    return describe_all(session, settings, [job])[0]


def describe_all(session: Session, settings: Settings, rows: Sequence[Job]) -> list[dict[str, Any]]:
    """Jobs as the REST API shows them, with two queries however many there are."""
    places = positions(session, rows)
    made = _artefacts(session, rows)
    return [
        _document(
            settings,
            job,
            places.get(job.id or 0),
            [made[key] for key in _keys(job) if key in made],
        )
        for job in rows
    ]


def _document(
    settings: Settings, job: Job, position: int | None, made: Sequence[Artefact]
) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "state": str(job.state),
        "progress": job.progress,
        "message": job.message,
        "position": position,
        "error": {
            "kind": job.error_kind,
            "message": job.error_message or "",
            "hint": job.error_hint or "",
        }
        if job.error_kind
        else None,
        "artefacts": [describe_artefact(settings, row) for row in made],
        "repo": job.repo,
        "revision": job.revision,
        "commit": job.commit,
        "plugin": job.plugin,
        "variants": job.request.get("variants", []),
        "options": job.request.get("options", {}),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "attempt": job.attempt,
    }


def describe_artefact(settings: Settings, artefact: Artefact) -> dict[str, Any]:
    """An artefact as the REST API shows it, with the address of each file."""
    base = f"{settings.base_url}/{quote(artefact.repo)}/resolve/{artefact.commit}"
    return {
        "variant": artefact.variant,
        "repo": artefact.repo,
        "commit": artefact.commit,
        "sandbox": artefact.sandbox,
        "check": {
            "state": checks.state(artefact.check_result),
            "said": checks.line(artefact.check_result),
        },
        "files": [
            {
                "path": file["path"],
                "size": file["size"],
                "sha256": file["sha256"],
                "url": f"{base}/{quote(file['path'])}",
            }
            for file in artefact.files
        ],
    }
