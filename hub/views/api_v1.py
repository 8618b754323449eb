"""The hub's own REST API, described by OpenAPI: what the pages and the command line use too."""

from pathlib import Path
from typing import Any, NoReturn

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest

from hub import documents, formats, joblog, jobs, listing, prospects, repos, requests
from hub.db import reading
from hub.errors import Forbidden, InvalidRequest, Unprocessable
from hub.models import Job as JobRow
from hub.models import JobState
from hub.schemas import (
    ConversionAnswer,
    ConversionQuery,
    ConversionRequest,
    Job,
    JobPage,
    JobPath,
    JobQuery,
    MirrorRequest,
    Model,
    ModelPage,
    ModelPath,
    ModelQuery,
    PluginPage,
)
from hub.security import reads, writes
from hub.web import current_settings

PROBLEM: dict[str, Any] = {
    "description": "A problem document (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
TOKEN: list[dict[str, list[str]]] = [{}, {"token": []}]
"""None on a hub bound to loopback, which has a single user; a token anywhere else."""

blueprint = APIBlueprint(
    "api_v1",
    __name__,
    url_prefix="/api/v1",
    abp_responses={"422": {**PROBLEM}, "default": {**PROBLEM}},
)

_JOBS = Tag(name="jobs", description="Requests to mirror or convert, and what became of them")
_MODELS = Tag(name="models", description="The catalogue")
_PLUGINS = Tag(name="plugins", description="The formats that models can be converted to")


def refuse(error: ValidationError) -> NoReturn:
    """Say in words which part of a request is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    raise Unprocessable(
        "invalid_request",
        f"{where[:200]}: {first['msg'][:400]}",
        "The API is described at /api/v1/docs.",
    )


@blueprint.before_request
def _check_body() -> None:
    """Refuse a body that is not JSON before anything reads it.

    That it must say it is JSON also keeps out the forms of other sites, which cannot say so.
    """
    if request.method not in ("POST", "PUT", "PATCH"):
        return
    if not request.is_json:
        raise InvalidRequest(
            "not_json", "The body is not JSON.", "Send it with Content-Type: application/json."
        )
    try:
        request.get_json()
    except (BadRequest, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "invalid_json", "The body is not valid JSON.", "Check its commas and quotes."
        ) from error


@blueprint.post("/mirrors", tags=[_JOBS], security=TOKEN, responses={"200": Job, "202": Job})
@writes
def mirror(body: MirrorRequest) -> Response:
    """Mirror a repo at a revision

    202 with the job, a new one or the one that is already on its way; 200 when it is done already.
    """
    settings = current_settings()
    if body.folder is not None and not settings.loopback:
        raise Forbidden(
            "folder_not_allowed",
            "Folders of the hub's machine are mirrored on a hub bound to loopback only.",
            "Run `slmhub mirror --from` on a local hub, or mirror from upstream.",
        )
    folder = None if body.folder is None else Path(body.folder)
    job = requests.request_mirror(settings, body.repo, body.revision, folder)
    return _accepted(job)


@blueprint.post(
    "/conversions",
    tags=[_JOBS],
    security=TOKEN,
    responses={"200": ConversionAnswer, "202": Job},
)
@writes
def convert(query: ConversionQuery, body: ConversionRequest) -> Response:
    """Convert a mirrored repo, or say what that will take

    202 with the job, a new one or the one that is already on its way; 200 when every artefact is
    there already. With `dry_run` nothing is queued, and 200 comes with the prospect; a repo that
    is not mirrored is then described by upstream.
    """
    settings = current_settings()
    asked = (body.repo, body.revision, body.plugin, body.variants, body.options)
    if query.dry_run:
        order = prospects.order(settings, *asked, ahead=True)
        return jsonify(documents.prospect(prospects.weigh(settings, order)))
    return _accepted(requests.request_conversion(settings, *asked))


@blueprint.get("/jobs", tags=[_JOBS], responses={"200": JobPage})
@reads
def list_jobs(query: JobQuery) -> Response:
    """List jobs, newest first"""
    settings = current_settings()
    with reading(settings.database) as session:
        rows, following = jobs.listing(
            session,
            state=query.state,
            kind=query.kind,
            repo=query.repo or None,
            cursor=query.cursor or None,
            limit=query.limit,
        )
        items = jobs.describe_all(session, settings, rows)
    return jsonify(items=items, next=following)


@blueprint.get("/jobs/<int:job_id>", tags=[_JOBS], responses={"200": Job})
@reads
def show_job(path: JobPath) -> Response:
    """Show a job"""
    return jsonify(_job(path.job_id))


@blueprint.delete("/jobs/<int:job_id>", tags=[_JOBS], security=TOKEN, responses={"200": Job})
@writes
def cancel_job(path: JobPath) -> Response:
    """Cancel a job

    A waiting one ends at once, a running one as soon as its worker hears of it.
    """
    jobs.cancel(current_settings(), path.job_id)
    return jsonify(_job(path.job_id))


@blueprint.get(
    "/jobs/<int:job_id>/log",
    tags=[_JOBS],
    responses={
        "200": {
            "description": "The log",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
@reads
def show_log(path: JobPath) -> Response:
    """Show the log of a job

    Empty before its first run.
    """
    settings = current_settings()
    with reading(settings.database) as session:
        jobs.get(session, path.job_id)
    return Response(joblog.read(jobs.log_path(settings, path.job_id)), mimetype="text/plain")


@blueprint.get("/models", tags=[_MODELS], responses={"200": ModelPage})
@reads
def list_models(query: ModelQuery) -> Response:
    """List the models of this hub"""
    settings = current_settings()
    with reading(settings.database) as session:
        rows, following = listing.page(
            session,
            q=query.q or None,
            tier=query.tier or None,
            kind=query.kind,
            license=query.license or None,
            architecture=query.architecture or None,
            sort=query.sort,
            cursor=query.cursor or None,
            limit=query.limit,
        )
        items = documents.models(session, settings, rows)
    return jsonify(items=items, next=following)


@blueprint.get("/models/<org>/<name>", tags=[_MODELS], responses={"200": Model})
@reads
def show_model(path: ModelPath) -> Response:
    """Show a model"""
    settings = current_settings()
    with reading(settings.database) as session:
        repo = repos.find(session, f"{path.org}/{path.name}")
        return jsonify(documents.model(session, settings, repo))


@blueprint.get("/plugins", tags=[_PLUGINS], responses={"200": PluginPage})
@reads
def list_plugins() -> Response:
    """List the plugins and their state here"""
    settings = current_settings()
    found = [documents.plugin(settings, fmt) for fmt in formats.shown(settings)]
    return jsonify(items=found, next=None)


def _job(job_id: int) -> dict[str, Any]:
    settings = current_settings()
    with reading(settings.database) as session:
        return jobs.describe(session, settings, jobs.get(session, job_id))


def _accepted(job: JobRow) -> Response:
    assert job.id is not None
    response = jsonify(_job(job.id))
    response.status_code = 200 if job.state == JobState.DONE else 202
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return response
