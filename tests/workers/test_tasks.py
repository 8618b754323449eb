"""The task's edge: every way a job can end, without a process of its own."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlmodel import col
from workbench import wait

from hub import db, joblog, jobs, leases
from hub.config import Settings
from hub.errors import Unprocessable
from hub.joblog import JobLog
from hub.models import Job
from workers import holding, tasks
from workers.holding import Cancelled, Holding


@pytest.fixture
def quick(settings: Settings) -> Iterator[Settings]:
    yield settings.model_copy(update={"heartbeat": 0.2, "lease": 2.0})
    holding._stopping = False


def submit(settings: Settings) -> int:
    job = jobs.submit(settings, Job(kind="convert", request_key="x", repo="org/model"))
    assert job.id is not None
    return job.id


def row(settings: Settings, job_id: int) -> Job:
    with db.reading(settings.database) as session:
        return jobs.get(session, job_id)


def run(settings: Settings, work: tasks.Work, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setitem(tasks.KINDS, "convert", work)
    job_id = submit(settings)
    tasks.run(settings, job_id, "w")
    assert list(settings.scratch.iterdir()) == []
    return row(settings, job_id)


def until_ended(held: Holding) -> None:
    wait(held.ended, "a reason to end")
    held.check()


def test_a_job_that_succeeds(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_settings: Settings, held: Holding, folder: Path, log: JobLog) -> str:
        (folder / "locked").mkdir()
        (folder / "locked" / "file").write_text("x")
        (folder / "locked").chmod(0)
        log.say("hello")
        held.report(0.5, "half")
        return "c" * 40

    found = run(quick, work, monkeypatch)
    assert (found.state, found.progress, found.commit) == ("done", 1.0, "c" * 40)
    log = joblog.tail(quick, found.id or 0)
    assert "attempt 1 by worker w" in log
    assert "hello" in log
    assert log.endswith("done\n")
    # A message that comes twice, or late, changes nothing.
    tasks.run(quick, found.id or 0, "w")
    tasks.run(quick, 12345, "w")
    assert row(quick, found.id or 0).attempt == 1


def test_refusals_are_told_as_they_are(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise Unprocessable("bad_model", "Cause.", "Hint.")

    found = run(quick, work, monkeypatch)
    assert (found.state, found.error_kind, found.error_message, found.error_hint) == (
        "failed",
        "bad_model",
        "Cause.",
        "Hint.",
    )
    assert "bad_model: Cause. Hint." in joblog.tail(quick, found.id or 0)


def test_surprises_are_told_by_number(
    quick: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def work(*_: object) -> None:
        raise ValueError("secret /path")

    found = run(quick, work, monkeypatch)
    assert (found.state, found.error_kind) == ("failed", "internal")
    assert "secret" not in (found.error_message or "")
    number = (found.error_message or "").split("error ")[1][:8]
    assert number in caplog.text
    assert "secret /path" in caplog.text


def test_a_full_disk_is_told(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    found = run(quick, work, monkeypatch)
    assert (found.error_kind, "MB are left" in (found.error_message or "")) == ("disk_full", True)


def test_what_filled_the_disk_is_gone_before_the_end_is_written(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[list[Path]] = []
    fail = leases.fail

    def work(*arguments: object) -> None:
        folder = arguments[2]
        assert isinstance(folder, Path)
        (folder / "large").write_bytes(b"x")
        raise Unprocessable("converter_failed", "Cause.", "Hint.")

    def failing(*arguments: Any) -> None:
        left.append(list(quick.scratch.iterdir()))
        fail(*arguments)

    monkeypatch.setattr(leases, "fail", failing)
    assert run(quick, work, monkeypatch).state == "failed"
    assert left == [[]]


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, "disk_full"), (errno.EACCES, "internal")]
)
def test_a_log_that_cannot_be_created_is_a_reason(
    quick: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    kind: str,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(JobLog, "__init__", refuse)
    job_id = submit(quick)
    tasks.run(quick, job_id, "w")
    found = row(quick, job_id)
    assert (found.state, found.error_kind, found.attempt) == ("failed", kind, 1)
    assert os.strerror(code) in caplog.text


def test_a_log_that_finds_no_space_hides_no_end(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*arguments: object) -> None:
        log = arguments[3]
        assert isinstance(log, JobLog)
        log.say("nobody will read this")
        raise Unprocessable("bad_model", "Cause.", "Hint.")

    monkeypatch.setitem(tasks.KINDS, "convert", work)
    job_id = submit(quick)
    quick.logs.mkdir(exist_ok=True)
    (quick.logs / f"{job_id}.log").symlink_to("/dev/full")
    tasks.run(quick, job_id, "w")
    found = row(quick, job_id)
    assert (found.state, found.error_kind) == ("failed", "bad_model")


def test_an_attempt_without_a_folder_ends(quick: Settings) -> None:
    quick.scratch.write_text("in the way")
    job_id = submit(quick)
    tasks.run(quick, job_id, "w")
    found = row(quick, job_id)
    assert (found.state, found.error_kind) == ("failed", "internal")


def test_cancelling(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(settings: Settings, held: Holding, *_: object) -> None:
        jobs.cancel(settings, held.claim.id)
        until_ended(held)

    found = run(quick, work, monkeypatch)
    assert (found.state, found.error_kind) == ("cancelled", None)


def test_a_lost_job_is_left_alone(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(settings: Settings, held: Holding, *_: object) -> None:
        with db.writing(settings.database) as session:
            session.connection().execute(
                update(Job).where(col(Job.id) == held.claim.id).values(lease_until=1.0)
            )
        leases.take_back(settings)
        leases.claim(settings, held.claim.id, "other")
        until_ended(held)

    found = run(quick, work, monkeypatch)
    assert (found.state, found.worker, found.losses) == ("running", "other", 1)


def test_a_stopping_worker_gives_back_before_the_work_ends(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def work(settings: Settings, held: Holding, *_: object) -> None:
        tasks.stop(15, None)
        wait(held.ended)
        wait(lambda: row(settings, held.claim.id).state == "queued")
        states.append(row(settings, held.claim.id).state)
        raise Cancelled

    found = run(quick, work, monkeypatch)
    assert states == ["queued"]
    assert (found.state, found.attempt, found.losses) == ("queued", 0, 0)


def test_work_that_is_done_while_the_worker_stops_counts_for_the_next(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(settings: Settings, held: Holding, *_: object) -> None:
        tasks.stop()
        wait(lambda: row(settings, held.claim.id).state == "queued")

    assert run(quick, work, monkeypatch).state == "queued"


def test_progress_reaches_the_row(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, str]] = []

    def work(settings: Settings, held: Holding, *_: object) -> None:
        held.report(0.25, "a quarter")
        wait(lambda: row(settings, held.claim.id).progress)
        found = row(settings, held.claim.id)
        seen.append((found.progress, found.message))

    run(quick, work, monkeypatch)
    assert seen == [(0.25, "a quarter")]


def test_the_lease_is_kept_alive(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(settings: Settings, held: Holding, *_: object) -> None:
        first = row(settings, held.claim.id).lease_until or 0
        wait(lambda: (row(settings, held.claim.id).lease_until or 0) > first + 0.3)

    assert run(quick, work, monkeypatch).state == "done"


def test_a_database_that_is_away_meanwhile_does_not_end_the_work(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()
    real = leases.look
    asked = []

    def look(settings: Settings, claim: leases.Claim) -> leases.Beat:
        if away.is_set():
            asked.append(1)
            raise OperationalError("select", {}, Exception("away"))
        return real(settings, claim)

    monkeypatch.setattr(leases, "look", look)
    monkeypatch.setattr(leases, "heartbeat", lambda s, c, *_: look(s, c))

    def work(_settings: Settings, held: Holding, *_: object) -> None:
        away.set()
        while len(asked) < 3:
            time.sleep(0.01)
        assert not held.ended()
        away.clear()

    assert run(quick, work, monkeypatch).state == "done"
