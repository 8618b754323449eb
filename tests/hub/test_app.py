"""The application as a whole: its routes, and what tricks in addresses get."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from published import publish

from hub import db, security
from hub.app import create_app
from hub.config import ROOT, Settings

CANARY = "canary-7f3a"
_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | Path):
        _opened.append(str(arguments[0]))


sys.addaudithook(_audit)


@contextmanager
def opened() -> Iterator[list[str]]:
    """Collect the names of all files that Python opens meanwhile."""
    global _opened
    _opened = found = []
    try:
        yield found
    finally:
        _opened = None


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A hub with one model and files that nobody may read, asked through its application."""
    settings = Settings(data=tmp_path_factory.mktemp("hub") / "data")
    settings.data.mkdir()
    db.migrate(settings.database)
    publish(settings, "org/model", {"README.md": b"# A model\n", "config.json": b"{}"})
    (settings.data / "secret.txt").write_text(CANARY)
    (settings.data.parent / "secret.txt").write_text(CANARY)
    client = create_app(settings).test_client()
    client.get("/nothing")  # templates are read and compiled once
    client.get("/org/model/resolve/main/config.json")
    yield client
    db.engine(settings.database).dispose()


def test_every_route_says_whether_it_reads_or_writes(settings: Settings) -> None:
    assert security.undeclared(create_app(settings)) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_route_that_says_nothing_is_found(method: str) -> None:
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/new", "new", lambda: "", methods=[method])
    assert len(security.undeclared(app)) == 1


def test_a_route_that_reads_takes_no_writes() -> None:
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/new", "new", security.reads(lambda: ""), methods=["GET", "DELETE"])
    assert len(security.undeclared(app)) == 1


def test_a_question_by_post_is_told_from_a_page() -> None:
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/ask", "ask", security.asks(lambda: ""), methods=["POST"])
    assert security.undeclared(app) == []
    app.add_url_rule("/page", "page", security.asks(lambda: ""), methods=["GET"])
    assert len(security.undeclared(app)) == 1


def test_every_route_of_the_api_is_described(settings: Settings) -> None:
    app = create_app(settings)
    described = {
        (method.upper(), path)
        for path, methods in app.api_doc["paths"].items()
        for method in methods
    }
    routes = {
        (method, rule.rule.replace("<int:", "{").replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/") and not rule.endpoint.startswith("api_docs.")
        for method in set(rule.methods or ()) - {"HEAD", "OPTIONS"}
    }
    assert described == routes


TRICKS = [
    "..",
    "../..",
    "../../secret.txt",
    "..%2f..%2fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "%252e%252e%252fsecret.txt",
    "..%252fsecret.txt",
    "%00",
    "README.md%00",
    "..\\secret.txt",
    "..%5csecret.txt",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "./README.md",
    "README.md/..",
    "a" * 5000,
    "a/" * 2000 + "a",
    "%0a",
    "%c0%ae%c0%ae/secret.txt",
    "\u202e",
    "%",
    "%zz",
    "C:%5cWindows",
    "~root",
    "..;/secret.txt",
]
PLACES = [
    "/org/model/resolve/main/{}",
    "/org/model/resolve/{}/README.md",
    "/org/{}/resolve/main/README.md",
    "/{}/model/resolve/main/README.md",
    "/api/v1/models/org/{}",
    "/api/v1/models/{}/model",
    "/api/v1/jobs/{}",
    "/api/v1/jobs/{}/log",
    "/static/{}",
    "/org/model/blob/main/{}",
    "/org/{}",
]
pieces = st.sampled_from(["..", ".", "/", "//", "\\", "%", "%2e", "%2f", "%5c", "%00", "~", "a"])
tricks = (
    st.lists(pieces, min_size=1, max_size=8)
    .map("".join)
    .filter(lambda text: text not in ("a", "aa", "aaa") and text.strip("./") != "")
)


def _try(client: FlaskClient, place: str, trick: str) -> None:
    with opened() as files:
        # With its host: the client would take one from a path that begins with two slashes.
        answer = client.get("http://localhost" + place.format(trick))
    assert 400 <= answer.status_code < 500, (place, trick, answer.status)
    assert CANARY not in answer.get_data(as_text=True)
    assert "root:" not in answer.get_data(as_text=True)
    own = (str(ROOT / "templates"), str(ROOT / "hub"), sys.prefix, sys.base_prefix)
    assert [name for name in files if not name.startswith(own)] == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda text: ascii(text[:30]))
def test_known_tricks_in_addresses_get_nothing(place: str, trick: str, client: FlaskClient) -> None:
    if place.startswith("/org/model/resolve/main") and trick == "~root":
        return  # an ordinary name, of a file that is not there
    _try(client, place, trick)


@given(place=st.sampled_from(PLACES), trick=tricks)
@example(place="/org/model/resolve/main/{}", trick="%2e%2e%2f" * 3)
@hypothesis.settings(max_examples=200)
def test_any_trick_in_addresses_gets_nothing(place: str, trick: str, client: FlaskClient) -> None:
    _try(client, place, trick)


@given(text=st.text(min_size=1, max_size=60))
@hypothesis.settings(max_examples=50)
def test_no_text_in_an_address_is_an_internal_error(text: str, client: FlaskClient) -> None:
    for place in PLACES:
        answer = client.get(place.format(quote(text.encode("utf-8", "replace"), safe="/")))
        assert answer.status_code < 500, (place, text)


def test_it_reads_its_settings_from_the_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_DATA", str(settings.data))
    assert create_app().config["SETTINGS"].data == settings.data
