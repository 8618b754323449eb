"""The doorbell."""

import pytest
from redis_server import RedisServer
from workbench import wait

from hub import queue


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("rediss://:pw@host/0", "rediss://:pw@host/0"),
        ("unix:///a/b.sock", "redis+socket:///a/b.sock"),
        ("unix:///a/b.sock?db=3", "redis+socket:///a/b.sock?virtual_host=3"),
        ("unix://:pw@/a/b.sock", "redis+socket://:pw@/a/b.sock"),
    ],
)
def test_addresses_are_spelled_as_kombu_does(given: str, wanted: str) -> None:
    assert queue.broker_url(given) == wanted


def test_ringing_and_counting(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANSWER_TIMEOUT", "CONNECT_TIMEOUT"):
        monkeypatch.setattr(queue, name, 60)  # the client of this server is yet to be made
    assert queue.waiting(redis_server.url) == 0
    for number in (1, 2, 3):
        queue.ring(redis_server.url, number)
    assert queue.waiting(redis_server.url) == 3
    redis_server.ask("FLUSHALL")
    assert queue.waiting(redis_server.url) == 0


def test_a_redis_that_is_away_is_told_and_found_again(redis_server: RedisServer) -> None:
    def heard() -> bool:
        """Whether a living server answered: a busy machine may take longer than the hub waits."""
        try:
            queue.ring(redis_server.url, 1)
            return queue.waiting(redis_server.url) >= 1
        except queue.OperationalError:
            return False

    wait(heard, "Redis was not found")
    for away, back in (
        (redis_server.stop, redis_server.start),
        (redis_server.pause, redis_server.go_on),
    ):
        away()
        for act in (
            lambda: queue.ring(redis_server.url, 1),
            lambda: queue.waiting(redis_server.url),
        ):
            with pytest.raises(queue.OperationalError):
                act()
        back()
        wait(heard, "Redis was not found again")
