"""Workers that do not consume: what ends them, and what they get over without an end."""

import time
from pathlib import Path

import pytest
from proxy import proxied
from redis_server import RedisServer
from workbench import PATIENCE, Bench, alive, make_bench, wait

from hub import db, leases, queue
from hub.config import Settings
from hub.models import Job
from workers import watchdog
from workers.watchdog import Watchdog


@pytest.fixture
def served(
    settings: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(queue, "ANSWER_TIMEOUT", 60)
    return settings.model_copy(update={"redis_url": redis_server.url})


def add(settings: Settings, key: str = "x") -> int:
    with db.writing(settings.database) as session:
        session.add(job := Job(kind="convert", request_key=key, repo="org/model"))
    return job.id or 0


def looks(dog: Watchdog, count: int = watchdog.LOOKS) -> bool:
    for _ in range(count):
        dog.look()
    return dog.stalled


def test_a_worker_that_does_not_start_what_waits_is_stalled(served: Settings) -> None:
    add(served)
    dog = Watchdog(served, "1@here", lambda: 0)
    assert not looks(dog, watchdog.LOOKS - 1)
    assert looks(dog, 1)


def test_nothing_waits(served: Settings) -> None:
    assert not looks(Watchdog(served, "1@here", lambda: 0))


def test_every_slot_is_busy(served: Settings) -> None:
    leases.claim(served, add(served, "a"), "1@here")
    add(served, "b")
    assert not looks(Watchdog(served, "1@here", lambda: 0))
    assert looks(Watchdog(served, "2@here", lambda: 0))


def test_a_start_in_between_is_a_sign_of_life(served: Settings) -> None:
    add(served)
    started = 0
    dog = Watchdog(served, "1@here", lambda: started)
    looks(dog, watchdog.LOOKS - 1)
    started = 1
    assert not looks(dog, watchdog.LOOKS)
    assert looks(dog, 1)


def test_while_redis_is_away_nobody_is_to_blame(
    served: Settings, redis_server: RedisServer
) -> None:
    add(served)
    dog = Watchdog(served, "1@here", lambda: 0)
    looks(dog, watchdog.LOOKS - 1)
    redis_server.stop()
    with pytest.raises(queue.OperationalError):
        dog.look()
    redis_server.start()
    assert not looks(dog, watchdog.LOOKS - 1)


@pytest.mark.slow
def test_a_stalled_worker_ends_and_another_does_the_work(
    settings: Settings, redis_server: RedisServer, tmp_path: Path
) -> None:
    bench = make_bench(settings, redis_server, tmp_path)
    try:
        worker = bench.start(STUB_LOOKS=str(watchdog.LOOKS))
        bench.wait_for(bench.submit(0), "done")
        (slot,) = worker.children()
        slot.suspend()
        job = bench.submit(1)
        assert worker.wait(PATIENCE) == 1
        assert "stalled: jobs wait" in bench.log.read_text()
        wait(lambda: not alive(slot.pid))
        bench.start()
        bench.wait_for(job, "done")
        bench.check()
    finally:
        bench.stop()


@pytest.mark.slow
def test_outages_longer_than_every_timeout_need_no_new_worker(
    settings: Settings, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A Redis that stands still, a connection that died without a word, a Redis that was stopped.

    Each lasts half a minute or more, and then the same worker consumes again within one.
    """
    with proxied(redis_server.url.removeprefix("unix://")) as proxy:
        # The watchdog has to be more patient than the consumer, as it is by default.
        bench = make_bench(settings, redis_server, tmp_path, redis_url=proxy.url, reconcile=8.0)
        try:
            worker = bench.start(STUB_LOOKS=str(watchdog.LOOKS))
            bench.wait_for(bench.submit(0), "done")
            redis_server.pause()
            job = _through(bench, 1, 35)
            redis_server.go_on()
            bench.wait_for(job, "done")
            proxy.cut_silently()
            bench.wait_for(bench.submit(2), "done")
            redis_server.stop()
            job = _through(bench, 3, 30)
            redis_server.start()
            bench.wait_for(job, "done")
            assert bench.workers == [worker]
            assert alive(worker.pid)
            assert "stalled" not in bench.log.read_text()
            bench.check()
        finally:
            bench.stop()


def _through(bench: Bench, number: int, seconds: float) -> int:
    """Accept a job in an outage, and sit the outage out; the job's id."""
    job = bench.submit(number)
    time.sleep(seconds)
    assert bench.job(job).state == "queued"
    return job
