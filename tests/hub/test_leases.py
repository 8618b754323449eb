"""Leases: one holder at a time, and nobody changes what is not theirs."""

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlmodel import col

from hub import db, jobs, leases
from hub.config import Settings
from hub.errors import Unprocessable
from hub.leases import Beat, Claim, LostLease
from hub.models import Job, JobState


def queue_job(settings: Settings, name: str = "a") -> int:
    job = jobs.submit(settings, Job(kind="convert", request_key=name, repo="org/model"))
    assert job.id is not None
    return job.id


def row(settings: Settings, job_id: int) -> Job:
    with db.reading(settings.database) as session:
        return jobs.get(session, job_id)


def expire(settings: Settings, job_id: int) -> None:
    with db.writing(settings.database) as session:
        session.connection().execute(
            update(Job).where(col(Job.id) == job_id).values(lease_until=1.0)
        )


def claimed(settings: Settings, job_id: int, worker: str = "w") -> Claim:
    claim = leases.claim(settings, job_id, worker)
    assert claim is not None
    return claim


def test_a_job_is_claimed_once(either: Settings) -> None:
    job_id = queue_job(either)
    claim = claimed(either, job_id, "1@here")
    assert (claim.token, claim.attempt) == (1, 1)
    assert leases.claim(either, job_id, "2@here") is None
    assert leases.claim(either, 999, "2@here") is None
    found = row(either, job_id)
    assert (found.state, found.worker) == ("running", "1@here")
    assert found.lease_until is not None
    assert found.heartbeat_at is not None
    assert found.lease_until - found.heartbeat_at == pytest.approx(either.lease, abs=0.01)


def test_the_ways_to_end(either: Settings) -> None:
    error = Unprocessable("bad_model", "It is bad.", "Take another.")
    for name, state in (("done", "done"), ("fail", "failed"), ("cancelled", "cancelled")):
        claim = claimed(either, queue_job(either, name))
        if name == "fail":
            leases.fail(either, claim, error)
        else:
            getattr(leases, name)(either, claim)
        found = row(either, claim.id)
        assert found.state == state
        assert found.finished_at is not None
        assert found.lease_until is None
        if name == "fail":
            assert found.error_kind == "bad_model"
            assert found.error_hint == "Take another."
        # The same end again is no error: the answer to the first may have been lost.
        getattr(leases, name)(either, claim, *([error] if name == "fail" else []))
        other = leases.done if name != "done" else leases.cancelled
        with pytest.raises(LostLease):
            other(either, claim)


def test_heartbeats_extend_the_lease_and_carry_progress(either: Settings) -> None:
    claim = claimed(either, queue_job(either))
    expire(either, claim.id)
    assert leases.heartbeat(either, claim, 0.5, "half") is Beat.OURS
    assert leases.take_back(either) == []
    found = row(either, claim.id)
    assert (found.progress, found.message) == (0.5, "half")
    jobs.cancel(either, claim.id)
    assert leases.look(either, claim) is Beat.CANCEL
    assert leases.heartbeat(either, claim) is Beat.CANCEL


def test_a_lost_worker_cannot_change_anything(either: Settings) -> None:
    job_id = queue_job(either)
    zombie = claimed(either, job_id, "zombie")
    expire(either, job_id)
    assert leases.take_back(either) == [job_id]
    found = row(either, job_id)
    assert (found.state, found.losses, found.notified_at) == ("queued", 1, None)
    for _ in range(2):
        assert leases.heartbeat(either, zombie, 0.9, "alive!") is Beat.LOST
        assert leases.look(either, zombie) is Beat.LOST
        for end in (leases.done, leases.cancelled, leases.release, leases.publishing):
            with pytest.raises(LostLease):
                end(either, zombie)
        with pytest.raises(LostLease), db.writing(either.database) as session:
            leases.fence(session, zombie)
        # And the same once somebody else holds it.
        leases.claim(either, job_id, "other")
    twin = row(either, job_id)
    assert (twin.state, twin.worker, twin.progress) == ("running", "other", 0.0)


def test_the_third_loss_fails_the_job(either: Settings) -> None:
    job_id = queue_job(either)
    for loss in range(1, 4):
        claimed(either, job_id)
        expire(either, job_id)
        assert leases.take_back(either) == [job_id]
        assert row(either, job_id).losses == loss
    found = row(either, job_id)
    assert (found.state, found.error_kind) == ("failed", "lost_worker")
    assert found.finished_at is not None


def test_a_lost_job_that_was_cancelled_ends(either: Settings) -> None:
    claim = claimed(either, queue_job(either))
    jobs.cancel(either, claim.id)
    expire(either, claim.id)
    leases.take_back(either)
    assert row(either, claim.id).state == JobState.CANCELLED


def test_giving_back_is_neither_a_loss_nor_an_attempt(either: Settings) -> None:
    claim = claimed(either, queue_job(either))
    leases.release(either, claim)
    found = row(either, claim.id)
    assert (found.state, found.losses, found.attempt) == ("queued", 0, 0)
    again = claimed(either, claim.id)
    assert (again.attempt, again.token) == (1, 2)
    with pytest.raises(LostLease):
        leases.done(either, claim)


def test_what_was_not_sent_and_not_heard(either: Settings) -> None:
    first, second = queue_job(either, "a"), queue_job(either, "b")
    assert leases.unsent(either) == [first, second]
    with db.writing(either.database) as session:
        jobs.get(session, first).notified_at = 5.0
    assert leases.unsent(either) == [second]
    assert leases.unheard(either, 15) == [first]
    assert leases.queued(either) == 2
    claimed(either, first)
    assert leases.unheard(either, 15) == []


def test_a_long_queue_is_looked_through_in_pieces(
    either: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BATCH", 2)
    numbers = [queue_job(either, str(number)) for number in range(5)]
    found: list[list[int]] = []
    while piece := leases.unsent(either):
        found.append(piece)
        with db.writing(either.database) as session:
            for number in piece:
                jobs.get(session, number).notified_at = 5.0
    assert found == [numbers[:2], numbers[2:4], numbers[4:]]
    assert leases.unheard(either, 15) == numbers[:2]


def _claim_all(
    database_url: str, data: str, numbers: list[int], answers: "multiprocessing.Queue[object]"
) -> None:
    settings = Settings(data=Path(data), database_url=database_url)
    mine: list[int] = []
    try:
        for number in numbers:
            if leases.claim(settings, number, "w") is not None:
                mine.append(number)
    except Exception as error:
        answers.put(repr(error))
        raise
    answers.put(mine)


def race(settings: Settings, count: int) -> None:
    with db.writing(settings.database) as session:
        session.add_all(
            Job(kind="convert", request_key=str(n), repo="org/model") for n in range(count)
        )
    db.engine(settings.database).dispose()
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[object] = context.Queue()
    numbers = list(range(1, count + 1))
    racers = [
        context.Process(
            target=_claim_all,
            args=(settings.database_url, str(settings.data), numbers, answers),
        )
        for _ in range(8)
    ]
    for racer in racers:
        racer.start()
    taken: Counter[int] = Counter()
    for _ in racers:
        mine = answers.get(timeout=600)
        assert isinstance(mine, list), mine
        taken.update(mine)
    for racer in racers:
        racer.join()
    assert sorted(taken) == numbers
    assert set(taken.values()) == {1}


@pytest.mark.slow
def test_eight_processes_claim_a_thousand_jobs_once_each(either: Settings) -> None:
    race(either, 1000)
