"""Signing in: the form, and where it leads."""

import pytest
from pydantic import SecretStr

from hub.app import create_app
from hub.config import Settings

ADMIN = "a-long-admin-token-of-a-test"


def test_a_hub_on_loopback_has_no_login(settings: Settings) -> None:
    answer = create_app(settings).test_client().get("/login")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("/jobs/1?page=2", "/jobs/1?page=2"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("http://[bad", "/"),
        ("jobs", "/"),
        ("", "/"),
    ],
)
def test_it_leads_to_pages_of_this_hub_only(wanted: str, given: str, settings: Settings) -> None:
    public = settings.model_copy(update={"host": "0.0.0.0", "admin_token": SecretStr(ADMIN)})
    client = create_app(public).test_client()
    assert client.get("/login", query_string={"next": wanted}).status_code == 200
    answer = client.post("/login", data={"token": ADMIN, "next": wanted})
    assert answer.headers["Location"] == given
