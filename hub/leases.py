"""The worker's side of a job: claim it, stay alive, end it; and take it back from the lost.

Every change names the lease token it was claimed with, and the token grows whenever a job changes
hands: a worker that was presumed dead and wakes up changes nothing. Times come from the database,
so that machines whose clocks differ agree on what has expired.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Update, func, text, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlmodel import Session, col, select
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from hub import db
from hub.config import Settings
from hub.errors import HubError
from hub.models import Job, JobState

HELD = (JobState.RUNNING, JobState.PUBLISHING)
LOSSES = 3
AWAY = (OperationalError, InterfaceError)
PATIENCE = 600.0
BATCH = 100
"""Jobs that are looked up at once to be rung for: the next look finds those behind them."""

P = ParamSpec("P")
R = TypeVar("R")


class LostLease(Exception):
    """The job is somebody else's now: stop, and publish nothing."""


@dataclass(frozen=True)
class Claim:
    """A job that this worker holds, as long as nobody took it back."""

    id: int
    token: int
    kind: str
    repo: str
    revision: str
    commit: str | None
    plugin: str | None
    request: dict[str, Any]
    attempt: int

    @property
    def folder(self) -> str:
        """The name of its folder in the scratch folder: another attempt never shares it."""
        return f"{self.id}-{self.token}"


class Beat(Enum):
    """What a worker learns at a sign of life."""

    OURS = "ours"
    CANCEL = "cancel"
    LOST = "lost"


def patiently(function: Callable[P, R]) -> Callable[P, R]:
    """Try again while the database is away, 10 minutes long: the work behind it took longer."""

    @wraps(function)
    def patient(*args: P.args, **keywords: P.kwargs) -> R:
        attempts = Retrying(
            retry=retry_if_exception_type(AWAY),
            stop=stop_after_delay(PATIENCE),
            wait=wait_exponential(multiplier=0.1, max=5),
            reraise=True,
        )
        return attempts(function, *args, **keywords)

    return patient


def clock(session: Session) -> float:
    """The database's time in seconds since 1970: one clock for all machines."""
    if session.get_bind().dialect.name == "postgresql":
        return float(
            session.connection().scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0
        )
    return time.time()


def claim(settings: Settings, job_id: int, worker: str) -> Claim | None:
    """Take a queued job; None when it is not to be had: taken, ended, or never there."""
    with db.writing(settings.database) as session:
        now = clock(session)
        taken = session.connection().execute(
            update(Job)
            .where(col(Job.id) == job_id, col(Job.state) == JobState.QUEUED)
            .values(
                state=JobState.RUNNING,
                lease_token=Job.lease_token + 1,
                lease_until=now + settings.lease,
                heartbeat_at=now,
                attempt=Job.attempt + 1,
                worker=worker,
                started_at=now,
                progress=0.0,
                message="",
            )
        )
        if taken.rowcount != 1:
            return None
        job = session.get_one(Job, job_id)
        return Claim(
            job_id,
            job.lease_token,
            job.kind,
            job.repo,
            job.revision,
            job.commit,
            job.plugin,
            job.request,
            job.attempt,
        )


def _held(claim: Claim) -> Update:
    return update(Job).where(
        col(Job.id) == claim.id,
        col(Job.lease_token) == claim.token,
        col(Job.state).in_(HELD),
    )


def heartbeat(
    settings: Settings, claim: Claim, progress: float | None = None, message: str | None = None
) -> Beat:
    """Renew the lease and tell how far the work is (0 to 1)."""
    with db.writing(settings.database) as session:
        now = clock(session)
        values: dict[str, Any] = {"heartbeat_at": now, "lease_until": now + settings.lease}
        if progress is not None:
            values["progress"] = min(max(progress, 0.0), 1.0)
        if message is not None:
            values["message"] = message[:500]
        if session.connection().execute(_held(claim).values(**values)).rowcount != 1:
            return Beat.LOST
        return _beat(session, claim)


def look(settings: Settings, claim: Claim) -> Beat:
    """Whether the job is still ours, and wanted; writes nothing."""
    with db.reading(settings.database) as session:
        return _beat(session, claim)


def _beat(session: Session, claim: Claim) -> Beat:
    row = session.exec(
        select(Job.state, Job.lease_token, Job.cancel).where(col(Job.id) == claim.id)
    ).one_or_none()
    if row is None or row[1] != claim.token or row[0] not in HELD:
        return Beat.LOST
    return Beat.CANCEL if row[2] else Beat.OURS


def fence(session: Session, claim: Claim) -> None:
    """Lock the job's row in this transaction, so that nobody takes it back; or raise LostLease."""
    row = session.exec(select(Job).where(col(Job.id) == claim.id).with_for_update()).one_or_none()
    if row is None or row.lease_token != claim.token or row.state not in HELD:
        raise LostLease


def _change(settings: Settings, claim: Claim, state: JobState, **values: Any) -> None:
    with db.writing(settings.database) as session:
        if state not in HELD:
            values |= {"lease_until": None, "worker": None}
            if state != JobState.QUEUED:
                values["finished_at"] = clock(session)
        if session.connection().execute(_held(claim).values(state=state, **values)).rowcount == 1:
            return
        # The answer to an earlier try may have been lost together with the connection.
        row = session.get(Job, claim.id)
        if row is None or row.lease_token != claim.token or row.state != state:
            raise LostLease


@patiently
def running(settings: Settings, claim: Claim) -> None:
    """Say that the work goes on after a variant was published."""
    _change(settings, claim, JobState.RUNNING)


@patiently
def publishing(settings: Settings, claim: Claim) -> None:
    """Say that a finished variant is being published."""
    _change(settings, claim, JobState.PUBLISHING)


@patiently
def done(settings: Settings, claim: Claim, commit: str | None = None) -> None:
    """End a job that succeeded; `commit` is what a mirror made of its revision."""
    values: dict[str, Any] = {"commit": commit} if commit else {}
    _change(settings, claim, JobState.DONE, progress=1.0, message="", **values)


@patiently
def fail(settings: Settings, claim: Claim, error: HubError) -> None:
    """End a job that failed for a reason that another try would meet again."""
    _change(
        settings,
        claim,
        JobState.FAILED,
        message="",
        error_kind=error.kind,
        error_message=error.message,
        error_hint=error.hint,
    )


@patiently
def cancelled(settings: Settings, claim: Claim) -> None:
    """End a job that someone asked to end."""
    _change(settings, claim, JobState.CANCELLED, message="")


def release(settings: Settings, claim: Claim) -> None:
    """Give a job back unfinished, because this worker stops: not a loss, and not an attempt.

    Unlike the other ends it does not wait for a database that is away.
    """
    _change(
        settings,
        claim,
        JobState.QUEUED,
        attempt=claim.attempt - 1,
        notified_at=None,
        progress=0.0,
        message="The worker stopped: waiting for another",
    )


def take_back(settings: Settings) -> list[int]:
    """Queue the jobs whose worker was lost, and fail those that lost three; returns their ids."""
    with db.writing(settings.database) as session:
        now = clock(session)
        lost = session.exec(
            select(Job)
            .where(col(Job.state).in_(HELD), col(Job.lease_until) < now)
            .with_for_update(skip_locked=True)
        ).all()
        for job in lost:
            _take_back(job, now)
        return [job.id for job in lost if job.id is not None]


def _take_back(job: Job, now: float) -> None:
    seen = f"{job.worker or 'unknown'}, last heard of {now - (job.heartbeat_at or now):.0f} s ago"
    job.lease_token += 1
    job.lease_until = None
    job.worker = None
    job.losses += 1
    job.progress = 0.0
    job.message = ""
    if job.cancel:
        job.state = JobState.CANCELLED
    elif job.losses >= LOSSES:
        job.state = JobState.FAILED
        job.error_kind = "lost_worker"
        job.error_message = (
            f"The worker was lost {job.losses} times during this job ({seen}). "
            "The job itself may be what ends it, for example by using up the machine's memory."
        )
        job.error_hint = "Look at the job's log and the worker's, then request it again."
    else:
        job.state = JobState.QUEUED
        job.notified_at = None
        job.message = f"The worker was lost ({seen}): waiting for another"
        return
    job.finished_at = now


def unheard(settings: Settings, age: float) -> list[int]:
    """Queued jobs whose message was sent `age` seconds ago and not heard; the BATCH oldest."""
    with db.reading(settings.database) as session:
        return list(_ids(session, col(Job.notified_at) < clock(session) - age))


def unsent(settings: Settings) -> list[int]:
    """Queued jobs for which no message was sent since they were queued; the BATCH oldest."""
    with db.reading(settings.database) as session:
        return list(_ids(session, col(Job.notified_at).is_(None)))


def queued(settings: Settings) -> int:
    """How many jobs wait."""
    with db.reading(settings.database) as session:
        return session.exec(
            select(func.count()).select_from(Job).where(col(Job.state) == JobState.QUEUED)
        ).one()


def held(settings: Settings, worker: str) -> int:
    """How many jobs the slots of a worker hold."""
    mine = (
        select(func.count())
        .select_from(Job)
        .where(col(Job.worker) == worker, col(Job.state).in_(HELD))
    )
    with db.reading(settings.database) as session:
        return session.exec(mine).one()


def _ids(session: Session, condition: Any) -> list[int]:
    ids = session.exec(
        select(Job.id)
        .where(col(Job.state) == JobState.QUEUED, condition)
        .order_by(col(Job.id))
        .limit(BATCH)
    )
    return [number for number in ids if number is not None]
