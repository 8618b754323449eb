"""The task: claim a job, run it, end it. The one edge where a job's errors are caught."""

import errno
import logging
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from hub import leases, scratch
from hub.config import Settings
from hub.errors import HubError, NoSpace
from hub.joblog import JobLog
from hub.leases import Claim, LostLease
from workers import convert, holding, mirror
from workers.holding import Cancelled, Holding, Reason

log = logging.getLogger(__name__)

Work = Callable[[Settings, Holding, Path, JobLog], str | None]
KINDS: dict[str, Work] = {"mirror": mirror.run, "convert": convert.run}


def stop(*_: object) -> None:
    """A signal handler: the running job ends and is given back."""
    holding.stop()


def run(settings: Settings, job_id: int, worker: str) -> None:
    """Carry a job out, if it is still to be had."""
    claim = leases.claim(settings, job_id, worker)
    if claim is None:
        log.info("job %d is not to be had: somebody else was earlier, or it has ended", job_id)
        return
    folder = settings.scratch / claim.folder
    try:
        with Holding(settings, claim) as held:
            outcome = _outcome(settings, held, folder, worker)
            # First: what filled the disk may be in it, and the end is a row that needs some space.
            scratch.remove(folder)
            _end(settings, held, outcome)
    except LostLease:
        log.warning("job %d was taken back meanwhile; nothing of this attempt counts", job_id)
    except leases.AWAY as error:
        # The lease runs out, and the job begins anew once there is a database again.
        log.error("job %d: the database stayed away (%s)", job_id, error.orig)
    finally:
        scratch.remove(folder)


Outcome = HubError | Cancelled | str | None


def _outcome(settings: Settings, held: Holding, folder: Path, worker: str) -> Outcome:
    """Do the work: its result, or what ended it."""
    claim = held.claim
    try:
        with JobLog(settings, claim.id) as joblog:
            joblog.say(f"attempt {claim.attempt} by worker {worker}")
            folder.mkdir(parents=True)
            return KINDS[claim.kind](settings, held, folder, joblog)
    except (HubError, Cancelled) as error:
        return error
    except (LostLease, *leases.AWAY):
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _unexpected(claim, error)
        free = shutil.disk_usage(settings.data).free
        return NoSpace(
            "disk_full",
            f"The disk is full: {free / 1024**2:.0f} MB are left.",
            "Free some space (`slmhub gc` removes what nothing needs), then request it again.",
        )
    except Exception as error:  # noqa: BLE001 - the edge: one job's fault must not end the worker
        return _unexpected(claim, error)


def _unexpected(claim: Claim, error: Exception) -> HubError:
    number = uuid.uuid4().hex[:8]
    log.error("job %d: error %s", claim.id, number, exc_info=error)
    return HubError(
        "internal",
        f"Something went wrong inside the hub (error {number}).",
        "The worker's log has the details under this number.",
    )


def _end(settings: Settings, held: Holding, outcome: Outcome) -> None:
    claim = held.claim
    if isinstance(outcome, Cancelled):
        reason = held.reason or Reason.STOP
        _note(settings, claim, f"ended: {reason.value}")
        # A job that was lost is not ours to end, and one of a stopping worker was given back.
        if reason is Reason.CANCEL:
            leases.cancelled(settings, claim)
    elif isinstance(outcome, HubError):
        text = f"failed: {outcome.kind}: {outcome.message} {outcome.hint}"
        _note(settings, claim, text.rstrip())
        leases.fail(settings, claim, outcome)
    else:
        leases.done(settings, claim, outcome)
        _note(settings, claim, "done")


def _note(settings: Settings, claim: Claim, text: str) -> None:
    """Write the end into the job's log. One that cannot be written is no obstacle to it."""
    try:
        with JobLog(settings, claim.id) as joblog:
            joblog.say(text)
    except OSError as error:
        log.warning("job %d: its log cannot be written (%s)", claim.id, error)
