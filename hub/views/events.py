"""The life of a job as server-sent events.

Every stream holds a thread of the server, so their number is bounded; none holds a transaction.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, current_app, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from hub import jobs
from hub.config import Settings
from hub.db import reading
from hub.errors import Unavailable
from hub.leases import AWAY
from hub.models import ACTIVE, JobState
from hub.schemas import JobPath
from hub.security import reads
from hub.views.api_v1 import PROBLEM
from hub.web import current_settings

STREAMS = 32
"""Streams that one process serves at a time: a quarter of its threads."""
INTERVAL = 0.5
KEEPALIVE = 10.0
"""Seconds of silence after which a comment is sent: so a client that went away is noticed."""
CHUNK = 64 * 1024

blueprint = APIBlueprint(
    "events", __name__, url_prefix="/api/v1", abp_responses={"422": PROBLEM, "default": PROBLEM}
)
_slots = threading.BoundedSemaphore(STREAMS)


@blueprint.get(
    "/jobs/<int:job_id>/events",
    tags=[Tag(name="jobs")],
    responses={
        "200": {
            "description": "Events `job` (its JSON, at first and when it changes) and `log` "
            "(lines of its log; the id is a position to resume from, as Last-Event-ID)",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
@reads
def stream(path: JobPath) -> Response:
    """Follow a job to its end"""
    settings = current_settings()
    with reading(settings.database) as session:
        jobs.get(session, path.job_id)
    if not _slots.acquire(blocking=False):
        raise Unavailable(
            "too_many_streams",
            f"{STREAMS} event streams are open already.",
            "Ask for the job itself from time to time.",
        )
    last = request.headers.get("Last-Event-ID", "0")
    start = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
    alive: Callable[[], bool] = current_app.extensions.get("alive", lambda: True)
    response = Response(
        _events(settings, path.job_id, start, alive),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    response.call_on_close(_slots.release)
    return response


def _events(
    settings: Settings, job_id: int, position: int, alive: Callable[[], bool]
) -> Iterator[str]:
    log = _Log(settings, job_id, position)
    shown: dict[str, Any] | None = None
    spoken = time.monotonic()
    yield "retry: 2000\n\n"
    while alive():
        # First the job, then its log: what it wrote before its end is sent before the stream ends.
        job = _look(settings, job_id)
        ended = job is not None and JobState(job["state"]) not in ACTIVE
        said = log.lines(final=ended)
        if job != shown and job is not None:
            said.append(_event("job", json.dumps(job)))
            shown = job
        if not said and time.monotonic() - spoken > KEEPALIVE:
            said.append(": still here\n\n")
        if said:
            spoken = time.monotonic()
            yield "".join(said)
        if ended:
            return
        time.sleep(INTERVAL)


def _look(settings: Settings, job_id: int) -> dict[str, Any] | None:
    """The job as the API shows it; nothing while the database is away, for it may come back."""
    try:
        with reading(settings.database) as session:
            return jobs.describe(session, settings, jobs.get(session, job_id))
    except AWAY:
        return None


def _event(name: str, data: str, number: int | None = None) -> str:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    mark = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{mark}{lines}\n"


class _Log:
    """What is new in a job's log, in whole lines."""

    def __init__(self, settings: Settings, job_id: int, position: int) -> None:
        self._path = jobs.log_path(settings, job_id)
        self._position = position

    def lines(self, *, final: bool) -> list[str]:
        """Events for the lines that came since the last call; at the end an unfinished one too."""
        found = []
        while new := self._read(final=final):
            self._position += len(new)
            text = new.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
            found.append(_event("log", text.removesuffix("\n"), self._position))
        return found

    def _read(self, *, final: bool) -> bytes:
        try:
            with self._path.open("rb") as file:
                # A log that grew too long was shortened in its middle: go on at its end.
                self._position = min(self._position, file.seek(0, 2))
                file.seek(self._position)
                new = file.read(CHUNK)
        except FileNotFoundError:
            return b""
        whole = new[: new.rfind(b"\n") + 1]
        return whole or (new if final or len(new) == CHUNK else b"")
