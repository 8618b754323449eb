"""Whole workers as real processes, and what kills them."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from postgres import PostgresServer
from redis_server import RedisServer
from sqlmodel import col, select
from workbench import PATIENCE, Bench, alive, make_bench, wait

from hub import db, jobs
from hub.config import Settings
from hub.models import Job

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(either: Settings, redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(either, redis_server, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def small(settings: Settings, redis_server: RedisServer, tmp_path: Path) -> Iterator[Bench]:
    """The same on SQLite alone."""
    made = make_bench(settings, redis_server, tmp_path)
    yield made
    made.stop()


def test_jobs_run_in_turn_and_publish(bench: Bench) -> None:
    first, second = bench.submit(1), bench.submit(2)
    bench.start()
    bench.wait_for(second, "done")
    assert bench.job(first).state == "done"
    assert [line[1] for line in bench.lines("start")] == [str(first), str(second)]
    bench.check()


def test_a_killed_slot_loses_nothing(bench: Bench) -> None:
    bench.miss_soon()
    bench.start()
    job = bench.submit(first=600)
    slot, converter = bench.running(job)
    os.kill(slot, signal.SIGKILL)
    wait(lambda: not alive(converter))
    found = bench.wait_for(job, "done")
    assert (found.losses, found.attempt) == (1, 2)
    bench.check()


def test_a_slot_killed_while_its_worker_starts(small: Bench) -> None:
    """Celery ends such a worker, or puts another slot there: what starts workers must be told."""
    small.miss_soon()
    worker = small.start()
    job = small.submit()
    wait(worker.children)
    worker.children()[0].kill()
    wait(lambda: worker.poll() is not None or small.job(job).state == "done")
    if worker.poll() is not None:
        assert worker.wait() != 0
        small.start()
    small.wait_for(job, "done")
    small.check()


def test_a_killed_worker_loses_nothing(small: Bench) -> None:
    small.miss_soon()
    worker = small.start()
    job = small.submit(first=600)
    slot, converter = small.running(job)
    worker.kill()
    worker.wait(PATIENCE)
    wait(lambda: not alive(slot) and not alive(converter))
    small.start()
    found = small.wait_for(job, "done")
    assert found.losses == 1
    small.check()


def test_a_killed_converter_fails_its_job_alone(small: Bench) -> None:
    small.start()
    job, other = small.submit(1, sleep=600), small.submit(2)
    _slot, converter = small.running(job)
    os.kill(converter, signal.SIGKILL)
    assert small.wait_for(job, "failed").error_kind == "internal"
    small.wait_for(other, "done")
    small.check()


def test_a_job_that_kills_its_worker_is_given_up(small: Bench) -> None:
    small.miss_soon()
    small.start()
    job = small.submit(sleep=600)
    for attempt in (1, 2, 3):
        slot, _ = small.running(job, attempt)
        os.kill(slot, signal.SIGKILL)
    assert small.wait_for(job, "failed").error_kind == "lost_worker"
    small.check()


def test_flushing_redis_loses_nothing(bench: Bench, redis_server: RedisServer) -> None:
    ids = [bench.submit(n, sleep=0.5) for n in range(6)]
    redis_server.ask("FLUSHALL")
    bench.start()
    for turn in range(4):
        wait(lambda turn=turn: len(bench.lines("published")) > turn)
        redis_server.ask("FLUSHALL")
    for job in ids:
        bench.wait_for(job, "done")
    assert len(bench.lines("start")) == 6
    bench.check()


def test_redis_gone_and_back(small: Bench, redis_server: RedisServer) -> None:
    small.start()
    small.wait_for(small.submit(0), "done")
    redis_server.stop()
    job = small.submit(1)
    assert small.job(job).state == "queued"
    redis_server.start()
    small.wait_for(job, "done")
    redis_server.pause()
    job = small.submit(2)
    redis_server.go_on()
    small.wait_for(job, "done")
    small.check()


def test_messages_do_not_pile_up_behind_a_busy_worker(
    small: Bench, redis_server: RedisServer
) -> None:
    small.start()
    first = small.submit(0, sleep=8)
    ids = [small.submit(n, sleep=0) for n in range(1, 5)]
    small.running(first)
    wait(lambda: small.job(first).state == "done")
    for job in ids:
        small.wait_for(job, "done")
    assert len(small.lines("start")) == 5
    small.check()


def test_a_job_longer_than_the_visibility_timeout_runs_once(small: Bench) -> None:
    small.start(STUB_VISIBILITY="2")
    job = small.submit(sleep=8)
    assert small.wait_for(job, "done").attempt == 1
    assert len(small.lines("start")) == 1
    small.check()


def test_a_zombie_cannot_publish(small: Bench) -> None:
    small.miss_soon()
    zombie = small.start()
    job = small.submit(first=600)
    slot, _ = small.running(job)
    stopped = [psutil.Process(slot), zombie]
    small.suspend(*stopped)
    small.start()
    assert small.wait_for(job, "done").losses == 1
    token = small.job(job).lease_token
    for process in stopped:
        process.resume()
    wait(
        lambda: (
            len(small.lines("ended", job)) + len(small.lines("published", job)) >= 2
            or not any(
                child.is_running() and child.pid == slot and child.children()
                for child in small.children(zombie)
            )
        )
    )
    again = small.submit(1)
    small.wait_for(again, "done")
    assert [line[2] for line in small.lines("published", job)] == [str(token)]
    small.check()


def test_cancelling_ends_the_converter(small: Bench) -> None:
    small.start()
    job = small.submit(sleep=600)
    _slot, converter = small.running(job)
    jobs.cancel(small.settings, job)
    small.wait_for(job, "cancelled")
    wait(lambda: not alive(converter))
    small.check()


def test_a_stopping_worker_gives_its_job_back(small: Bench) -> None:
    worker = small.start()
    job = small.submit(first=600)
    slot, converter = small.running(job)
    worker.terminate()
    small.wait_for(job, "queued")
    worker.wait(PATIENCE)
    assert not alive(slot)
    assert not alive(converter)
    found = small.job(job)
    assert (found.losses, found.attempt) == (0, 0)
    small.start()
    assert small.wait_for(job, "done").attempt == 1
    small.check()


def test_an_idle_worker_stops(small: Bench) -> None:
    worker = small.start()
    small.wait_for(small.submit(), "done")
    worker.terminate()
    assert worker.wait(PATIENCE) == 0


@pytest.mark.postgres
def test_a_database_that_was_away(
    own_postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path / "data", database_url=own_postgres.url)
    settings.data.mkdir()
    db.migrate(settings.database)
    bench = make_bench(settings, redis_server, tmp_path)
    try:
        bench.miss_soon()
        bench.start()
        job = bench.submit(0, sleep=15)
        waiting = bench.submit(1)
        bench.running(job)
        own_postgres.stop()
        time.sleep(6)  # longer than the lease
        own_postgres.start()
        found = bench.wait_for(job, "done")
        assert (found.losses, found.attempt) == (0, 1)
        bench.wait_for(waiting, "done")
        bench.check()
    finally:
        bench.stop()
        db.engine(settings.database).dispose()


def test_the_queue_of_a_new_worker_has_what_was_lost(small: Bench) -> None:
    with db.writing(small.settings.database) as session:
        # The row was committed, and the process died before it rang.
        session.add(Job(kind="convert", request_key="x", repo="org/model", request={}))
    small.start()
    with db.reading(small.settings.database) as session:
        (job,) = session.exec(select(Job).where(col(Job.request_key) == "x"))
    wait(lambda: small.job(job.id or 0).state != "queued")
