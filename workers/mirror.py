"""A mirroring: plan it, refuse what cannot be, then transfer what is missing."""

from pathlib import Path

from hub import leases, mirror
from hub.config import Settings
from hub.joblog import JobLog
from workers.holding import Cancelled, Holding

PLANNING = 0.01


def run(settings: Settings, held: Holding, _folder: Path, joblog: JobLog) -> str:
    """Mirror the job's repo; the commit that was made visible.

    What was transferred so far is kept by hub.mirror outside the attempt's folder, so that another
    attempt goes on from there.
    """
    claim = held.claim
    folder = claim.request.get("folder")
    held.report(0.0, "Asking upstream")
    try:
        plan = mirror.plan(
            settings,
            claim.repo,
            claim.revision,
            Path(folder) if folder else None,
            cancelled=held.ended,
        )

        held.check()

        def report(done: int, total: int, message: str) -> None:
            share = done / total if total else 1.0
            held.report(PLANNING + (1 - PLANNING) * share, message)

        commit = mirror.mirror(
            settings,
            plan,
            report=report,
            cancelled=held.ended,
            guard=lambda session: leases.fence(session, claim),
        )
    except mirror.Cancelled as error:
        raise Cancelled from error
    joblog.say(f"{plan.repo}@{claim.revision} is {commit}")
    return commit
