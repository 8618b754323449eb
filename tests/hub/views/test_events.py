"""Following a job: what comes, when it ends, and that streams are bounded."""

import json
import threading
from collections.abc import Iterator

import httpx
import pytest
from servers import gunicorn

from hub import db, joblog, jobs
from hub.app import create_app
from hub.config import Settings
from hub.models import Job, JobState
from hub.views import events


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "INTERVAL", 0.01)


@pytest.fixture
def job(settings: Settings) -> int:
    with db.writing(settings.database) as session:
        row = Job(kind="mirror", request_key="k", repo="org/model")
        session.add(row)
        session.flush()
        assert row.id is not None
        return row.id


def change(settings: Settings, number: int, **columns: object) -> None:
    with db.writing(settings.database) as session:
        row = jobs.get(session, number)
        for name, value in columns.items():
            setattr(row, name, value)


class Stream:
    """The events of a response, one by one."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._text = ""

    def next(self) -> tuple[str, str, str]:
        """Name, data and id of the next event; comments and hints are passed over."""
        while True:
            while "\n\n" not in self._text:
                self._text += next(self._chunks).decode()
            one, self._text = self._text.split("\n\n", 1)
            fields: dict[str, list[str]] = {}
            for line in one.split("\n"):
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            if "event" in fields:
                return fields["event"][0], "\n".join(fields["data"]), fields.get("id", [""])[0]

    def job(self) -> dict[str, object]:
        """The next state of the job."""
        while True:
            name, data, _ = self.next()
            if name == "job":
                found: dict[str, object] = json.loads(data)
                return found

    def rest(self) -> str:
        """Everything until the end."""
        return self._text + b"".join(self._chunks).decode()


def test_a_job_is_followed_to_its_end(settings: Settings, job: int) -> None:
    client = create_app(settings).test_client()
    with client.get(f"/api/v1/jobs/{job}/events") as answer:
        assert answer.mimetype == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        stream = Stream(answer.iter_encoded())
        assert stream.job()["state"] == "queued"
        change(settings, job, state=JobState.RUNNING, progress=0.5, message="Loading")
        shown = stream.job()
        assert (shown["state"], shown["progress"]) == ("running", 0.5)
        with joblog.JobLog(settings, job) as log:
            log.write(b"first\nsecond\nunfini")
            assert stream.next() == ("log", "first\nsecond", "13")
            log.write(b"shed\n")
            assert stream.next()[:2] == ("log", "unfinished")
            log.write(b"last words without an end")
        change(settings, job, state=JobState.DONE, progress=1.0)
        assert stream.next()[:2] == ("log", "last words without an end")
        assert stream.job()["state"] == "done"
        assert stream.rest() == ""


def test_it_goes_on_where_a_client_left_off(settings: Settings, job: int) -> None:
    with joblog.JobLog(settings, job) as log:
        log.write(b"first\nsecond\n")
    change(settings, job, state=JobState.DONE)
    client = create_app(settings).test_client()
    for mark, expected in (("6", "second"), ("0", "first\nsecond"), ("x", "first\nsecond")):
        with client.get(f"/api/v1/jobs/{job}/events", headers={"Last-Event-ID": mark}) as answer:
            assert Stream(answer.iter_encoded()).next()[1] == expected


def test_a_log_that_was_shortened_is_followed_from_its_end(settings: Settings, job: int) -> None:
    with joblog.JobLog(settings, job) as log:
        log.write(b"short\n")
    change(settings, job, state=JobState.DONE)
    client = create_app(settings).test_client()
    headers = {"Last-Event-ID": "99999"}
    with client.get(f"/api/v1/jobs/{job}/events", headers=headers) as answer:
        assert Stream(answer.iter_encoded()).next()[0] == "job"


def test_silence_is_filled_with_comments(
    settings: Settings, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEPALIVE", 0.0)
    with create_app(settings).test_client().get(f"/api/v1/jobs/{job}/events") as answer:
        chunks = answer.iter_encoded()
        next(chunks)
        next(chunks)
        assert next(chunks).startswith(b": ")


def test_no_transaction_is_held(settings: Settings, job: int) -> None:
    with create_app(settings).test_client().get(f"/api/v1/jobs/{job}/events") as answer:
        Stream(answer.iter_encoded()).job()
        assert db.engine(settings.database).pool.checkedout() == 0


def test_unknown_jobs_have_no_stream(settings: Settings) -> None:
    client = create_app(settings).test_client()
    assert client.get("/api/v1/jobs/99/events").status_code == 404


def test_streams_are_bounded(settings: Settings, job: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_slots", threading.BoundedSemaphore(1))
    client = create_app(settings).test_client()
    url = f"/api/v1/jobs/{job}/events"
    for _ in range(2):  # the place is free again once a stream is closed
        with client.get(url) as one:
            assert one.status_code == 200
            refused = client.get(url)
            assert (refused.status_code, refused.json["kind"]) == (503, "too_many_streams")
            assert int(refused.headers["Retry-After"]) > 0
    with client.head(url) as one:
        assert one.status_code == 200
    with client.get(url) as one:
        assert one.status_code == 200


@pytest.mark.slow
def test_streams_end_when_the_server_stops(settings: Settings, job: int) -> None:
    with (
        gunicorn(settings.data) as (address, process),
        httpx.stream(
            "GET", f"{address}/api/v1/jobs/{job}/events", trust_env=False, timeout=60
        ) as answer,
    ):
        chunks = answer.iter_raw()
        next(chunks)
        process.terminate()
        for _ in chunks:  # ends, and is not cut: that would raise
            pass
        assert process.wait(60) == 0
