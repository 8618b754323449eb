"""Every error becomes an answer of the right form."""

import pytest
from flask.testing import FlaskClient
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import OperationalError

from hub.app import create_app
from hub.config import Settings
from hub.errors import HubError, NoSpace, NotFound, TooManyRequests, Unavailable, Unprocessable
from hub.security import reads


def client_of(settings: Settings, error: Exception) -> FlaskClient:
    """A hub with a page and an API route that fail in this way."""
    app = create_app(settings)

    @reads
    def fail() -> str:
        raise error

    app.add_url_rule("/fail", "fail", fail)
    app.add_url_rule("/api/v1/fail", "api_fail", fail)
    return app.test_client()


@pytest.mark.parametrize(
    "error",
    [
        NotFound("job_not_found", "There is no job 7.", "Look at /jobs."),
        Unprocessable("unknown_plugin", "There is no plugin x.", "Known: gguf."),
        NoSpace("disk_full", "12 GB are needed, 3 GB are free."),
    ],
)
def test_what_is_expected_is_told(error: HubError, settings: Settings) -> None:
    client = client_of(settings, error)
    answer = client.get("/api/v1/fail")
    assert answer.content_type == "application/problem+json"
    assert answer.status_code == error.status
    assert answer.json == {
        "type": f"urn:slmhub:problem:{error.kind}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "kind": error.kind,
        "hint": error.hint,
    }
    page = client.get("/fail")
    assert page.status_code == error.status
    assert page.mimetype == "text/html"
    assert error.message in page.text
    assert error.hint in page.text


def test_programs_get_json_from_pages_too(settings: Settings) -> None:
    client = client_of(settings, NotFound("x_not_found", "No x."))
    for accept in ("application/json", "application/problem+json"):
        answer = client.get("/fail", headers={"Accept": accept})
        assert answer.json["kind"] == "x_not_found"
    for accept in ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8"):
        assert client.get("/fail", headers={"Accept": accept}).mimetype == "text/html"


def test_messages_are_escaped(settings: Settings) -> None:
    client = client_of(settings, NotFound("x", "<script>alert(1)</script>", "<b>"))
    text = client.get("/fail").text
    assert "<script>alert" not in text
    assert "<b>" not in text


def test_the_unexpected_is_logged_under_the_id_that_is_shown(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(settings, ZeroDivisionError("secret detail"))
    for path in ("/fail", "/api/v1/fail"):
        answer = client.get(path)
        number = answer.headers["X-Request-Id"]
        assert answer.status_code == 500
        assert "secret detail" not in answer.text
        assert number in answer.text
        assert number in caplog.text
    assert "ZeroDivisionError: secret detail" in caplog.text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OperationalError("SELECT 1", {}, Exception("gone")), "database_away"),
        (RedisConnectionError("gone"), "redis_away"),
        (BrokerError("gone"), "redis_away"),
    ],
)
def test_what_is_away_for_now(error: Exception, kind: str, settings: Settings) -> None:
    answer = client_of(settings, error).get("/api/v1/fail")
    assert answer.status_code == 503
    assert answer.json["kind"] == kind
    assert int(answer.headers["Retry-After"]) > 0
    assert "SELECT" not in answer.text
    assert client_of(settings, error).get("/fail").status_code == 503


def test_patience_is_told_in_seconds(settings: Settings) -> None:
    busy = TooManyRequests("busy", "Later.", retry_after=7.2)
    assert client_of(settings, busy).get("/fail").headers["Retry-After"] == "7"
    away = Unavailable("away", "Later.")
    assert int(client_of(settings, away).get("/fail").headers["Retry-After"]) > 0


def test_errors_of_http_itself(settings: Settings) -> None:
    client = create_app(settings).test_client()
    missing = client.get("/api/v1/nothing")
    assert (missing.status_code, missing.json["kind"]) == (404, "not_found")
    wrong = client.put("/api/v1/jobs")
    assert (wrong.status_code, wrong.json["kind"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["Allow"]
    assert client.get("/nothing").mimetype == "text/html"


def test_the_database_comes_back_without_a_restart(settings: Settings) -> None:
    client = create_app(settings).test_client()
    database = settings.data / "hub.sqlite"
    assert client.get("/api/v1/models").status_code == 200
    from hub import db

    db.engine(settings.database).dispose()
    away = database.with_suffix(".away")
    database.rename(away)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.mkdir()
    assert client.get("/api/v1/models").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json["database"] == "away"
    database.rmdir()
    away.rename(database)
    assert client.get("/api/v1/models").status_code == 200
