"""The REST API as the command line speaks it."""

from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from hub.client import Client, Refused
from hub.config import Settings
from hub.errors import Unavailable


@pytest.fixture
def talk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[httpx.Request], httpx.Response]], Client]:
    """A client whose hub is a function."""
    monkeypatch.setenv("HUB_URL", "http://hub.example/")
    monkeypatch.setenv("HUB_TOKEN", "hf_x")

    def make(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
        client = Client(settings)
        headers = client._http.headers
        client._http.close()
        client._http = httpx.Client(
            base_url=f"{client.url}/api/v1",
            headers=headers,
            transport=httpx.MockTransport(answer),
        )
        return client

    return make


def test_it_sends_the_token_to_the_hub_it_was_told_of(talk: Callable[..., Client]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": 1})

    with talk(answer) as hub:
        assert hub.call("GET", "/jobs/1") == {"id": 1}
    assert str(seen[0].url) == "http://hub.example/api/v1/jobs/1"
    assert seen[0].headers["Authorization"] == "Bearer hf_x"


def test_lists_are_read_to_their_end(talk: Callable[..., Client]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["state"] == "done"
        assert "kind" not in request.url.params
        start = int(request.url.params.get("cursor", 0))
        following = str(start + 2) if start < 4 else None
        return httpx.Response(
            200, json={"items": [{"id": start}, {"id": start + 1}], "next": following}
        )

    with talk(answer) as hub:
        found = [item["id"] for item in hub.items("/jobs", state="done", kind=None)]
    assert found == [0, 1, 2, 3, 4, 5]


def test_a_problem_keeps_its_words(talk: Callable[..., Client]) -> None:
    problem = {"kind": "unknown_variant", "detail": "There is no Q9.", "hint": "Use Q8_0."}
    headers = {"Content-Type": "application/problem+json"}
    with (
        talk(lambda _: httpx.Response(422, json=problem, headers=headers)) as hub,
        pytest.raises(Refused) as caught,
    ):
        hub.call("POST", "/conversions", json={})
    assert caught.value.as_dict() == {
        "kind": "unknown_variant",
        "message": "There is no Q9.",
        "hint": "Use Q8_0.",
    }


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>Bad gateway"),
        httpx.Response(404, text="not here"),
        httpx.Response(301, headers={"Location": "https://elsewhere.example/"}),
        httpx.Response(200, text="<html>Something else", headers={"Content-Type": "text/html"}),
        httpx.Response(200, text="{", headers={"Content-Type": "application/json"}),
        httpx.Response(500, text="{", headers={"Content-Type": "application/problem+json"}),
    ],
)
def test_what_is_no_hub_is_told_so(talk: Callable[..., Client], answer: httpx.Response) -> None:
    with talk(lambda _: answer) as hub, pytest.raises(Refused) as caught:
        hub.call("GET", "/jobs")
    assert caught.value.kind == "unexpected_answer"
    assert "HUB_URL" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "nonsense", "ftp://host", "http://[::1", "http://a:b"]
)
def test_no_hub_there(settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HUB_URL", url)
    with pytest.raises(Unavailable) as caught, Client(settings) as hub:
        hub.call("GET", "/jobs")
    assert caught.value.kind == "no_hub"
    assert url in caught.value.message


def test_another_hub_does_not_see_the_admin_token(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(admin_token=SecretStr("a-secret-of-this-hub"))
    monkeypatch.delenv("HUB_TOKEN", raising=False)
    monkeypatch.delenv("HUB_URL", raising=False)
    with Client(settings) as own:
        assert own._http.headers["Authorization"] == "Bearer a-secret-of-this-hub"
    monkeypatch.setenv("HUB_URL", "http://other.example")
    with Client(settings) as other:
        assert "Authorization" not in other._http.headers
