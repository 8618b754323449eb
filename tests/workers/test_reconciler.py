"""The reconciler: it rings again, takes back, sweeps up, and outlives what fails."""

import time
from pathlib import Path

import pytest
from redis_server import RedisServer
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from hub import db, jobs, leases, queue, scratch
from hub.config import Settings
from hub.models import Job
from workers.reconciler import Reconciler


@pytest.fixture
def ringing(
    either: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(queue, "ANSWER_TIMEOUT", 60)
    return either.model_copy(update={"redis_url": redis_server.url, "reconcile": 1.0})


def add(settings: Settings, count: int = 1) -> list[int]:
    with db.writing(settings.database) as session:
        rows = [Job(kind="convert", request_key=str(n), repo="org/model") for n in range(count)]
        session.add_all(rows)
        session.flush()
        return [row.id or 0 for row in rows]


def age(settings: Settings) -> None:
    with db.writing(settings.database) as session:
        session.connection().execute(update(Job).values(notified_at=5.0))


def test_what_nobody_rang_for_is_rung_for(ringing: Settings) -> None:
    add(ringing, 3)
    reconciler = Reconciler(ringing)
    reconciler.tick()
    assert queue.waiting(ringing.redis) == 3
    reconciler.tick()
    assert queue.waiting(ringing.redis) == 3


def test_what_was_not_heard_is_rung_for_again_but_not_piled_up(
    ringing: Settings, redis_server: RedisServer
) -> None:
    add(ringing, 3)
    reconciler = Reconciler(ringing)
    reconciler.tick()
    for _ in range(3):
        age(ringing)
        reconciler.look()
        assert queue.waiting(ringing.redis) == 3
    redis_server.ask("FLUSHALL")
    reconciler.look()
    assert queue.waiting(ringing.redis) == 3
    # One of three was lost: all are rung for, and never more than once.
    redis_server.ask("LPOP", queue.QUEUE)
    for _ in range(3):
        age(ringing)
        reconciler.look()
    assert queue.waiting(ringing.redis) == 5


def test_lost_jobs_are_taken_back(ringing: Settings) -> None:
    (job,) = add(ringing)
    leases.claim(ringing, job, "w")
    with db.writing(ringing.database) as session:
        session.connection().execute(update(Job).values(lease_until=1.0))
    reconciler = Reconciler(ringing)
    reconciler.tick()
    reconciler.tick()
    with db.reading(ringing.database) as session:
        assert jobs.get(session, job).state == "queued"
    assert queue.waiting(ringing.redis) == 1


def test_after_an_outage_workers_get_time_to_say_that_they_live(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = settings.model_copy(update={"reconcile": 0.01, "heartbeat": 60})
    (job,) = add(quick)
    claim = leases.claim(quick, job, "w")
    assert claim is not None
    with db.writing(quick.database) as session:
        session.connection().execute(update(Job).values(lease_until=1.0))
    reconciler = Reconciler(quick)

    def away(_settings: Settings) -> list[int]:
        raise OperationalError("select", {}, Exception("away"))

    with monkeypatch.context() as patch:
        patch.setattr(leases, "unsent", away)
        reconciler.tick()
    reconciler.tick()
    with db.reading(quick.database) as session:
        assert jobs.get(session, job).state == "running"
    assert reconciler._patience_until > time.monotonic()
    reconciler._patience_until = time.monotonic()
    reconciler.look()
    with db.reading(quick.database) as session:
        assert jobs.get(session, job).state == "queued"


def test_it_outlives_surprises(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "take_back", lambda _: 1 / 0)
    reconciler = Reconciler(settings)
    reconciler.tick()
    assert "ZeroDivisionError" in caplog.text
    # And Redis being away, which it is here.
    add(settings)
    monkeypatch.undo()
    reconciler.tick()
    assert "Redis is away" in caplog.text


def test_what_lost_workers_left_is_swept_up(either: Settings, tmp_path: Path) -> None:
    job, other = add(either, 2)
    claim = leases.claim(either, job, "w")
    assert claim is not None
    names = [claim.folder, f"{job}-0", f"{other}-1", "999-1", "something else"]
    for name in names:
        (either.scratch / name / "inner" / "locked").mkdir(parents=True)
        (either.scratch / name / "inner" / "file").write_text("x")
        (either.scratch / name / "inner" / "locked").chmod(0)
        (either.scratch / name / "inner" / "out").symlink_to(tmp_path)
    outside = tmp_path / "kept"
    outside.write_text("x")
    assert scratch.sweep(either) == sorted(names[1:4])
    assert {path.name for path in either.scratch.iterdir()} == {claim.folder, "something else"}
    assert outside.exists()
    leases.done(either, claim)
    assert scratch.sweep(either) == [claim.folder]


def test_what_a_lost_worker_left_goes_before_its_job_is_taken_back(either: Settings) -> None:
    (job,) = add(either, 1)
    claim = leases.claim(either, job, "w")
    assert claim is not None
    (either.scratch / claim.folder).mkdir(parents=True)
    assert scratch.sweep(either) == []
    with db.writing(either.database) as session:
        session.get_one(Job, job).lease_until = 1.0
    assert scratch.sweep(either) == [claim.folder]
