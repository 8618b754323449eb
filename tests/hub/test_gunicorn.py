"""The settings of the web server, as gunicorn understands them."""

import importlib

import pytest
from gunicorn.config import Config

from hub.errors import Unauthorized
from hub.views.events import STREAMS


def configured(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Config:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SENDFILE", raising=False)
    module = importlib.reload(importlib.import_module("hub.gunicorn"))
    config = Config()
    for name, value in vars(module).items():
        if name in config.settings:
            config.set(name, value)
    return config


def test_files_go_out_by_sendfile(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch)
    assert config.sendfile is not False
    assert not config.is_ssl


def test_streams_and_slow_downloads_leave_threads_for_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(monkeypatch)
    assert config.worker_class_str == "gthread"
    assert config.threads >= STREAMS + 50 + 16


def test_stopping_takes_less_than_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured(monkeypatch).graceful_timeout < 8


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:8099"), ("::1", "[::1]:8099")]
)
def test_it_binds_to_the_address_of_the_settings(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured(monkeypatch, HUB_HOST=host, HUB_PORT="8099").bind == [address]


def test_it_does_not_bind_for_strangers_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthorized):
        configured(monkeypatch, HUB_HOST="192.0.2.1")
