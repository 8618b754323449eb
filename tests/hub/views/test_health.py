"""Probes."""

import pytest

from hub.app import create_app
from hub.config import Settings
from hub.views import health


def test_alive_needs_nothing_else(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(health, "reading", fail)
    monkeypatch.setattr(health.redis, "from_url", fail)
    answer = create_app(settings).test_client().get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


class _Redis:
    def ping(self) -> bool:
        return True

    def close(self) -> None:
        pass


def test_ready_needs_both(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    client = create_app(settings).test_client()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"database": "ok", "redis": "away"}
    assert int(answer.headers["Retry-After"]) > 0
    monkeypatch.setattr(health.redis, "from_url", lambda *_, **__: _Redis())
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {"database": "ok", "redis": "ok"}
