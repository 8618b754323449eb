"""The request's error edge: whatever a view raises becomes an answer here, and nowhere else.

Pages get templates/error.html, the API an RFC 9457 problem document, downloads one line of text
and Hugging Face's API its JSON, both with the headers that its clients look for. What is not
expected is logged under the request's id, and shown as that id alone.
"""

import logging
import re
from typing import Any

from flask import Flask, Response, g, jsonify, make_response, render_template, request
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from hub.errors import HubError, TooManyRequests, Unauthorized, Unavailable

log = logging.getLogger(__name__)

RETRY_AFTER = 10
"""Seconds after which a client should try again when the database or Redis is away."""

_CODES = {
    "repo_not_found": "RepoNotFound",
    "revision_not_found": "RevisionNotFound",
    "entry_not_found": "EntryNotFound",
}
"""Our kinds to the X-Error-Code values that huggingface_hub turns into its own exceptions."""


def install(app: Flask) -> None:
    """Answer every error of an application."""
    app.register_error_handler(HubError, _expected)
    app.register_error_handler(HTTPException, _http)
    for database in (OperationalError, InterfaceError, PoolTimeoutError):
        app.register_error_handler(database, _database_away)
    for broker in (BrokerError, RedisConnectionError, RedisTimeoutError):
        app.register_error_handler(broker, _redis_away)
    app.register_error_handler(Exception, _unexpected)


def respond(
    status: int, title: str, kind: str, message: str, hint: str = "", error_id: str = ""
) -> Response:
    """An error in the form that the request asks for."""
    if request.blueprint == "resolve":
        response = _coded(Response(f"{message}\n", mimetype="text/plain"), kind, message)
    elif request.blueprint == "hf_api":
        response = _coded(jsonify(error=message), kind, message)
    elif request.path.startswith("/api/") or _wants_json():
        response = _problem(status, title, kind, message, hint)
    else:
        response = make_response(
            render_template(
                "error.html",
                status=status,
                title=title,
                kind=kind,
                message=message,
                hint=hint,
                error_id=error_id,
            )
        )
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def problem(status: int, title: str, kind: str, detail: str, hint: str = "") -> dict[str, Any]:
    """The members of a problem document. `type` is a name, not an address: nothing is behind it."""
    return {
        "type": f"urn:slmhub:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "kind": kind,
        "hint": hint,
    }


def _problem(status: int, title: str, kind: str, detail: str, hint: str) -> Response:
    response = jsonify(problem(status, title, kind, detail, hint))
    response.content_type = "application/problem+json"
    return response


def _coded(response: Response, kind: str, message: str) -> Response:
    """Add the headers by which huggingface_hub tells errors apart."""
    code = _CODES.get(kind) or "".join(part.capitalize() for part in kind.split("_"))
    response.headers["X-Error-Code"] = code
    # Headers are one line of Latin-1, a message may quote anything.
    response.headers["X-Error-Message"] = re.sub(r"[^\x20-\x7e]", "?", message)
    return response


def _wants_json() -> bool:
    accepted = request.accept_mimetypes
    best = accepted.best_match(["text/html", "application/json", "application/problem+json"])
    return best is not None and best != "text/html" and not accepted.accept_html


def _expected(error: HubError) -> Response:
    response = respond(error.status, error.title, error.kind, error.message, error.hint)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="SLM Hub", charset="UTF-8"'
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _http(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:  # a redirect, or an answer that a view aborted with
        return make_response(error.get_response())
    title = error.name
    kind = re.sub(r"\W+", "_", title).strip("_").lower()
    message = "There is nothing here." if error.code == 404 else (error.description or title)
    response = respond(error.code, title, kind, message)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after", "content-range"):
            response.headers[name] = value
    return response


def _away(what: str, kind: str, error: Exception) -> Response:
    log.error("%s is away, request %s", what, g.get("request_id"), exc_info=error)
    return _expected(
        Unavailable(
            kind,
            f"{what} does not answer.",
            f"Nothing that was accepted is lost. Try again in {RETRY_AFTER} seconds.",
        )
    )


def _database_away(error: Exception) -> Response:
    return _away("The database", "database_away", error)


def _redis_away(error: Exception) -> Response:
    return _away("Redis", "redis_away", error)


def _unexpected(error: Exception) -> Response:
    error_id = g.get("request_id", "")
    log.error(
        "unexpected error, request %s: %s %s",
        error_id,
        request.method,
        request.path,
        exc_info=error,
    )
    return respond(
        500,
        HubError.title,
        "unexpected",
        f"The hub failed in a way it does not know. The error's id is {error_id}.",
        "The operator finds the cause under this id in the log of the web server.",
        error_id,
    )
