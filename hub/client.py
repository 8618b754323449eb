"""The hub's REST API as the command line speaks it."""

import os
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, Self

import httpx

from hub.config import Settings
from hub.errors import HubError, Unavailable

FINAL = ("done", "failed", "cancelled")


class Refused(HubError):
    """The hub answered with a problem document; its words are handed on."""


class Client:
    """A connection to a running hub: HUB_URL and HUB_TOKEN, else the address of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.url = os.environ.get("HUB_URL", settings.base_url).rstrip("/")
        token = os.environ.get("HUB_TOKEN")
        if not token and self.url == settings.base_url.rstrip("/"):
            # The admin token is this hub's secret: another one that HUB_URL names never sees it.
            token = settings.admin_token.get_secret_value()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # trust_env=False: a proxy of the surroundings has no business between a hub and its
            # tool.
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1", headers=headers, timeout=30, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise self._no_hub(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **keywords: Any) -> Any:
        """The JSON that the hub answers; raises Refused with its cause and hint."""
        try:
            answer = self._http.request(method, path, **keywords)
        except httpx.TransportError as error:
            raise self._no_hub(error) from error
        try:
            if not answer.is_success:
                raise _refusal(answer)
            kind = answer.headers.get("content-type", "").partition(";")[0]
            if kind == "text/plain":
                return answer.text
            if kind == "application/json":
                return answer.json()
        except JSONDecodeError as error:
            raise _stranger(answer) from error
        raise _stranger(answer)

    def _no_hub(self, error: Exception) -> Unavailable:
        return Unavailable(
            "no_hub",
            f"No hub answers at {self.url} ({error}).",
            "Start one with `slmhub up`, or name another in HUB_URL.",
        )

    def items(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            wanted = {key: value for key, value in params.items() if value is not None}
            page = self.call("GET", path, params=wanted | ({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page["next"]
            if not cursor:
                return


def _refusal(answer: httpx.Response) -> Refused:
    """The problem document of an answer, or what can be said without one."""
    if "problem+json" in answer.headers.get("content-type", ""):
        problem = answer.json()
        return Refused(
            problem.get("kind", "refused"),
            problem.get("detail") or problem.get("title", ""),
            problem.get("hint", ""),
        )
    return _stranger(answer)


def _stranger(answer: httpx.Response) -> Refused:
    """For an answer that no hub gives: that of a proxy, or of something else at this address."""
    return Refused(
        "unexpected_answer",
        f"The address answered {answer.status_code}, but not as a hub does.",
        "Is HUB_URL the address of an SLM Hub?",
    )
