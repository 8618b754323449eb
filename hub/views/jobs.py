"""Jobs as pages: the list, and one with its progress and its log."""

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from hub import catalogue, db, formats, joblog, jobs, names, requests
from hub.config import Settings
from hub.errors import Conflict
from hub.models import ACTIVE, JobState
from hub.security import reads, writes
from hub.web import current_settings

blueprint = Blueprint("jobs", __name__)

PAGE = 40
LOG_TAIL = 64 * 1024
"""Bytes of the log's end that the page itself carries."""
STATES = ("active", JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@blueprint.get("/jobs")
@reads
def index() -> str:
    """A page of the jobs, the newest first; or of those that a request `made`."""
    settings = current_settings()
    state = request.args.get("state") or None
    repo = request.args.get("repo") or None
    cursor = request.args.get("cursor") or None
    made = _numbers(request.args.get("made") or "")
    if repo is not None:
        names.check_name(repo)
    with db.reading(settings.database) as session:
        if made:
            rows, following = [jobs.get(session, number) for number in made], None
        else:
            rows, following = jobs.listing(
                session, state=state, repo=repo, cursor=cursor, limit=PAGE
            )
        described = list(zip(rows, jobs.describe_all(session, settings, rows), strict=True))
        counts = catalogue.state_counts(session, repo)
    counts["active"] = sum(counts.get(name, 0) for name in ACTIVE)
    return render_template(
        "jobs.html",
        rows=described,
        states=STATES,
        state=state,
        repo=repo,
        made=made,
        counts=counts,
        total=sum(counts.get(name, 0) for name in JobState),
        next=following and url_for("jobs.index", state=state, repo=repo, cursor=following),
        newest=cursor is None,
        titles=_titles(settings),
        active=ACTIVE,
    )


@blueprint.get("/jobs/<int:job_id>")
@reads
def show(job_id: int) -> str:
    """One job."""
    settings = current_settings()
    with db.reading(settings.database) as session:
        row = jobs.get(session, job_id)
        described = jobs.describe(session, settings, row)
        artefacts = jobs.artefacts(session, row)
    return render_template(
        "job.html",
        row=row,
        job=described,
        artefacts=artefacts,
        log=joblog.tail(settings, job_id, LOG_TAIL),
        titles=_titles(settings),
        live=row.state in ACTIVE,
    )


@blueprint.post("/jobs/<int:job_id>/cancel")
@writes
def cancel(job_id: int) -> Response:
    """End a job."""
    jobs.cancel(current_settings(), job_id)
    return redirect(url_for("jobs.show", job_id=job_id), 303)


@blueprint.post("/jobs/<int:job_id>/again")
@writes
def again(job_id: int) -> Response:
    """Ask once more for what a job that failed or was cancelled was to make."""
    settings = current_settings()
    with db.reading(settings.database) as session:
        job = jobs.get(session, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(
            "job_not_ended",
            f"Job {job_id} is {job.state}.",
            "Only what failed or was cancelled can be asked for again.",
        )
    return redirect(url_for("jobs.show", job_id=requests.again(settings, job_id).id), 303)


def _numbers(text: str) -> list[int]:
    """The jobs that an address names, as 12,13; none of them is asked for twice."""
    found = [part for part in text.split(",")[:PAGE] if part.isascii() and part.isdigit()]
    return list(dict.fromkeys(int(part[:11]) for part in found))


def _titles(settings: Settings) -> dict[str, str]:
    return {name: fmt.title for name, fmt in formats.formats(settings).items()}
