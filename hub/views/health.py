"""What operators and orchestrators ask: is the process alive, and can it do its work."""

import redis
from flask import Blueprint, Response, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from hub.db import reading
from hub.problems import RETRY_AFTER
from hub.security import reads
from hub.web import current_settings

blueprint = Blueprint("health", __name__)

TIMEOUT = 2.0
"""Seconds that Redis may take to answer."""


@blueprint.get("/healthz")
@reads
def healthz() -> Response:
    """Say that the process answers; nothing else is asked: an outage of others restarts nobody."""
    return Response("ok\n", mimetype="text/plain")


@blueprint.get("/readyz")
@reads
def readyz() -> Response:
    """Say whether the database and Redis answer: 200, or 503 and which one does not."""
    state = {"database": _database(), "redis": _redis()}
    response = jsonify(state)
    if set(state.values()) != {"ok"}:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _database() -> str:
    try:
        with reading(current_settings().database) as session:
            session.connection().execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "away"
    return "ok"


def _redis() -> str:
    client = redis.from_url(
        current_settings().redis, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
    )
    try:
        client.ping()
    except redis.RedisError:
        return "away"
    finally:
        client.close()
    return "ok"
