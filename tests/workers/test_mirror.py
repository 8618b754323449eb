"""Mirroring as a job: from upstream and from a folder, refused, cancelled."""

from pathlib import Path

import pytest
from fakehub import FakeHub, tiny_model
from sqlalchemy import update

from hub import db, joblog, jobs, leases, mirror, repos, requests
from hub.config import Settings
from hub.errors import NotFound
from hub.models import Job
from workers import mirror as job_of_mirror
from workers import tasks


def run(settings: Settings, job: Job) -> Job:
    tasks.run(settings, job.id or 0, "w")
    with db.reading(settings.database) as session:
        return jobs.get(session, job.id or 0)


def main(settings: Settings) -> str:
    with db.reading(settings.database) as session:
        return repos.find(session, "org/model").main


def test_from_upstream(settings: Settings) -> None:
    with FakeHub() as hub:
        sha = hub.add("org/model", tiny_model())
        there = settings.model_copy(update={"upstream": hub.url})
        found = run(there, requests.request_mirror(there, "org/model"))
    assert (found.state, found.error_message, found.commit) == ("done", None, sha)
    assert main(settings) == sha
    assert sha in joblog.tail(settings, found.id or 0)


def test_from_a_folder(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in tiny_model().items():
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    found = run(settings, requests.request_mirror(settings, "org/model", "main", folder))
    assert (found.state, found.error_message) == ("done", None)
    assert main(settings) == found.commit


def test_what_cannot_be_mirrored(settings: Settings, tmp_path: Path) -> None:
    found = run(settings, requests.request_mirror(settings, "org/model", "main", tmp_path))
    assert found.state == "failed"
    assert found.error_kind not in (None, "internal")


def test_cancelled(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = settings.model_copy(update={"heartbeat": 0.2})
    report = job_of_mirror.Holding.report

    def cancelling(self: job_of_mirror.Holding, progress: float, message: str) -> None:
        report(self, progress, message)
        jobs.cancel(quick, self.claim.id)
        self._thread.join(120)

    monkeypatch.setattr(job_of_mirror.Holding, "report", cancelling)
    with FakeHub() as hub:
        hub.add("org/model", tiny_model())
        there = quick.model_copy(update={"upstream": hub.url})
        assert run(there, requests.request_mirror(there, "org/model")).state == "cancelled"


def test_a_lost_lease_mirrors_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = mirror.plan

    def losing(*given: object, **named: object) -> mirror.Plan:
        found = plan(*given, **named)
        with db.writing(settings.database) as session:
            session.connection().execute(update(Job).values(lease_until=1.0))
        leases.take_back(settings)
        return found

    monkeypatch.setattr(mirror, "plan", losing)
    with FakeHub() as hub:
        hub.add("org/model", tiny_model())
        there = settings.model_copy(update={"upstream": hub.url})
        assert run(there, requests.request_mirror(there, "org/model")).state == "queued"
    with pytest.raises(NotFound):
        main(settings)
