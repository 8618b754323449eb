"""Job logs: bounded, without secrets, readable while they grow."""

import re

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from hub import joblog
from hub.config import Settings
from hub.joblog import JobLog


def test_what_is_written_can_be_read_at_once(settings: Settings) -> None:
    assert joblog.tail(settings, 7) == ""
    with JobLog(settings, 7) as log:
        log.say("attempt 1")
        assert joblog.tail(settings, 7) == "[hub] attempt 1\n"
        log.write(b"half a ")
        log.write(b"line\nand more")
        assert joblog.tail(settings, 7).endswith("half a line\n")
    assert joblog.tail(settings, 7, 8) == "and more"
    assert joblog.tail(settings, 7, 12) == "and more"
    with JobLog(settings, 7) as log:
        log.say("attempt 2")
    assert joblog.read(log.path, 6).startswith("attempt 1\n")
    assert joblog.read(log.path, 10**6) == ""


def test_a_large_log_keeps_its_head_and_its_tail(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblog, "LIMIT", 10_000)
    monkeypatch.setattr(joblog, "HEAD", 1_000)
    monkeypatch.setattr(joblog, "TAIL", 4_000)
    with JobLog(settings, 1) as log:
        for number in range(5000):
            log.write(b"line %05d\n" % number)
            assert log.path.stat().st_size <= 10_100
    text = joblog.read(log.path)
    assert text.startswith("line 00000\n")
    assert text.endswith("line 04999\n")
    left_out = sum(int(number) for number in re.findall(r"\[(\d+) bytes left out\]", text))
    marks = sum(len(mark) + 2 for mark in re.findall(r"\[\d+ bytes left out\]", text))
    assert len(text) - marks + left_out == 5000 * 11


def test_no_secret_reaches_the_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    made = Settings(
        data=settings.data,
        admin_token="the-admin-token",
        database_url="postgresql://me:pass-of-db@host/x",
        redis_url="redis://:pass-of-redis@host/0",
    )
    words = ["hf_secretsecretsecret", "the-admin-token", "pass-of-db", "pass-of-redis"]
    words.append("hf_" + "x" * 34)
    with JobLog(made, 1) as log:
        for word in words:
            for cut in range(1, len(word)):
                log.write(f"a {word[:cut]}".encode())
                log.write(f"{word[cut:]} b\n".encode())
    text = joblog.read(log.path)
    assert not [word for word in words if word in text]
    assert text.count("***") == sum(len(word) - 1 for word in words)


@limits(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_nothing_is_lost_below_the_limit(settings: Settings, parts: list[bytes]) -> None:
    with JobLog(settings, 9) as log:
        log.path.write_bytes(b"")
        for part in parts:
            log.write(part)
    assert log.path.read_bytes() == b"".join(parts)
