"""Hosts, origins, tokens, sessions and headers."""

import re
import time

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from hub import db, tokens
from hub.app import create_app
from hub.config import Settings
from hub.errors import Unauthorized
from hub.security import allowed_hosts

ADMIN = "a-long-admin-token-of-a-test"
JOB = "/api/v1/jobs/1"
"""Cancelling a job that does not exist: 404 for who may write."""


@pytest.fixture
def public(settings: Settings) -> Settings:
    """The settings of a hub that other machines reach."""
    return settings.model_copy(
        update={
            "host": "0.0.0.0",
            "public_url": "https://hub.example.org",
            "admin_token": SecretStr(ADMIN),
        }
    )


@pytest.fixture
def client(public: Settings) -> FlaskClient:
    return create_app(public).test_client()


def token(settings: Settings, scope: str = "write", **keywords: float) -> str:
    with db.writing(settings.database) as session:
        return tokens.create(session, f"a {scope} token", scope, **keywords)[0]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("change", "loopback"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"public_url": "http://localhost:9000"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "192.0.2.7"}, False),
        ({"public_url": "https://hub.example.org"}, False),
        ({"allowed_hosts": ["hub.example.org"]}, False),
    ],
)
def test_only_a_hub_on_loopback_starts_without_an_admin_token(
    change: dict[str, object], loopback: bool, settings: Settings
) -> None:
    changed = settings.model_copy(update=change)
    assert changed.loopback == loopback
    if loopback:
        create_app(changed)
    else:
        with pytest.raises(Unauthorized) as refused:
            create_app(changed)
        assert refused.value.kind == "admin_token_needed"


def test_a_short_admin_token_is_refused(public: Settings) -> None:
    with pytest.raises(Unauthorized) as refused:
        create_app(public.model_copy(update={"admin_token": SecretStr("short")}))
    assert "at least 16" in refused.value.message
    assert "short" not in refused.value.message


def test_on_loopback_nobody_needs_a_token(settings: Settings) -> None:
    assert create_app(settings).test_client().delete(JOB).status_code == 404


def test_reading_needs_none_anywhere(client: FlaskClient) -> None:
    assert client.get("/api/v1/models").status_code == 200
    assert client.get("/api/v1/models", headers=bearer("hf_of_another_hub")).status_code == 200


def test_writing_without_a_token(client: FlaskClient) -> None:
    for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": f"Basic {ADMIN}"}):
        answer = client.delete(JOB, headers=headers)
        assert answer.status_code == 401
        assert answer.json["kind"] == "token_needed"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_writing_with_tokens(client: FlaskClient, public: Settings) -> None:
    assert client.delete(JOB, headers=bearer(ADMIN)).status_code == 404
    assert client.delete(JOB, headers=bearer(token(public))).status_code == 404
    assert client.delete(JOB, headers=bearer(token(public, "admin"))).status_code == 404
    answer = client.delete(JOB, headers=bearer(token(public, "read")))
    assert answer.status_code == 403
    assert answer.json["kind"] == "scope_too_small"
    over = token(public, expires_at=time.time() - 1)
    assert client.delete(JOB, headers=bearer(over)).status_code == 401


def test_an_empty_admin_token_opens_nothing(settings: Settings, public: Settings) -> None:
    app = create_app(public)
    app.config["SETTINGS"] = public.model_copy(update={"admin_token": SecretStr("")})
    assert app.test_client().delete(JOB, headers=bearer("")).status_code == 401


def test_a_view_that_says_nothing_of_itself_needs_a_token(public: Settings) -> None:
    app = create_app(public)
    app.add_url_rule("/new", "new", lambda: "done", methods=["POST"])
    assert app.test_client().post("/new").status_code == 401
    assert app.test_client().post("/new", headers=bearer(ADMIN)).status_code == 200


def test_a_session_stands_for_a_token(client: FlaskClient, public: Settings) -> None:
    text = token(public)
    answer = client.post("/login", data={"token": text, "next": "/jobs"})
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/jobs"
    cookie = answer.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/"):
        assert part in cookie
    assert text not in cookie
    base = {"base_url": "https://hub.example.org"}
    client.post("/login", data={"token": text}, **base)
    assert client.delete(JOB, **base).status_code == 404
    with db.writing(public.database) as session:
        tokens.revoke(session, tokens.listing(session)[0].id)
    assert client.delete(JOB, **base).status_code == 401


def test_signing_out(client: FlaskClient) -> None:
    base = {"base_url": "https://hub.example.org"}
    client.post("/login", data={"token": ADMIN}, **base)
    assert client.delete(JOB, **base).status_code == 404
    client.post("/logout", **base)
    assert client.delete(JOB, **base).status_code == 401


def test_a_session_of_another_key_is_worth_nothing(public: Settings) -> None:
    base = {"base_url": "https://hub.example.org"}
    client = create_app(public).test_client()
    client.post("/login", data={"token": ADMIN}, **base)
    cookie = client.get_cookie("slmhub", domain="hub.example.org")
    assert cookie
    changed = public.model_copy(update={"admin_token": SecretStr(ADMIN + "2")})
    other = create_app(changed).test_client()
    other.set_cookie("slmhub", cookie.value, domain="hub.example.org")
    assert other.delete(JOB, **base).status_code == 401


def test_a_wrong_token_opens_no_session(client: FlaskClient) -> None:
    answer = client.post("/login", data={"token": "hf_wrong"})
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://[bad"},
        {"Origin": "http://localhost.evil.example"},
        {"Referer": "https://evil.example/page"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
@pytest.mark.parametrize("path", [JOB, "/login", "/nothing"])
def test_pages_of_other_sites_change_nothing(
    headers: dict[str, str], path: str, settings: Settings
) -> None:
    client = create_app(settings).test_client()
    answer = client.open(path, method="DELETE" if path == JOB else "POST", headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Referer": "http://localhost/jobs/1"},
    ],
)
def test_its_own_pages_and_programs_do(headers: dict[str, str], settings: Settings) -> None:
    assert create_app(settings).test_client().delete(JOB, headers=headers).status_code == 404


def test_behind_a_proxy_the_public_address_is_the_origin(client: FlaskClient) -> None:
    headers = {**bearer(ADMIN), "Origin": "https://hub.example.org"}
    assert client.delete(JOB, headers=headers).status_code == 404


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "evil:8080",
        "localhost@evil.example",
        "10.0.0.1",
    ],
)
def test_unknown_hosts_get_nothing(host: str, settings: Settings) -> None:
    client = create_app(settings).test_client()
    for path in ("/api/v1/models", "/org/model/resolve/main/x", "/nothing"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code in (400, 421)
    # Probes come by address.
    if re.fullmatch(r"[\d.]+", host):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "localhost:9999"]
)
def test_its_own_names_are_answered(host: str, settings: Settings) -> None:
    client = create_app(settings).test_client()
    assert client.get("/api/v1/models", headers={"Host": host}).status_code == 200


def test_names_come_from_the_settings(public: Settings) -> None:
    hosts = allowed_hosts(
        public.model_copy(update={"host": "192.0.2.7", "allowed_hosts": ["Models.lan", "h:80"]})
    )
    assert {"192.0.2.7", "hub.example.org", "models.lan", "h", "localhost"} <= hosts


@pytest.mark.parametrize("path", ["/api/v1/models", "/nothing", "/static/hub.css", "/healthz"])
def test_every_answer_has_the_headers(path: str, settings: Settings) -> None:
    answer = create_app(settings).test_client().get(path, buffered=True)
    headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Request-Id"]
    assert "Server" not in headers


def test_a_large_body_is_refused(settings: Settings) -> None:
    answer = (
        create_app(settings)
        .test_client()
        .post("/api/v1/mirrors", data=b'"' + b"x" * 2**20 + b'"', content_type="application/json")
    )
    assert answer.status_code == 413
    assert answer.json["kind"] == "request_entity_too_large"


def test_no_token_is_logged(
    client: FlaskClient, public: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    text = token(public)
    with caplog.at_level("DEBUG"):
        client.delete(JOB, headers=bearer(text))
        client.post("/login", data={"token": text})
    assert text not in caplog.text
    assert ADMIN not in caplog.text
