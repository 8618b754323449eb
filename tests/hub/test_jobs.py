"""Jobs as their users see them."""

import json
import threading

import pytest
from sqlalchemy import event

from hub import db, jobs, leases
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest, NotFound
from hub.models import Artefact, Job, JobState


def submit(settings: Settings, key: str = "a", **more: object) -> Job:
    values = {"kind": "convert", "request_key": key, "repo": "org/model"} | more
    return jobs.submit(settings, Job(**values))


def test_the_same_request_is_one_job(either: Settings) -> None:
    first = submit(either)
    assert submit(either).id == first.id
    assert submit(either, "b").id != first.id
    jobs.cancel(either, first.id or 0)
    assert submit(either).id != first.id


def test_the_same_request_from_many_at_once_is_one_job(either: Settings) -> None:
    gate = threading.Barrier(6)
    found: list[int | None] = []

    def ask() -> None:
        gate.wait()
        found.append(submit(either).id)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_jobs_are_accepted_while_redis_is_away(settings: Settings) -> None:
    job = submit(settings)
    assert job.notified_at is None


def test_request_keys_depend_on_content_alone() -> None:
    one = jobs.request_key("x", {"a": 1, "b": [True, None]})
    assert one == jobs.request_key("x", {"b": [True, None], "a": 1})
    assert len(one) == 64
    assert one != jobs.request_key("x", {"a": 1, "b": [True, "None"]})


def test_cancel(either: Settings) -> None:
    waiting, running, ended = (submit(either, key).id or 0 for key in "abc")
    claim = leases.claim(either, running, "w")
    assert claim is not None
    done = leases.claim(either, ended, "w")
    assert done is not None
    leases.done(either, done)
    gone = jobs.cancel(either, waiting)
    assert gone.state == JobState.CANCELLED
    assert gone.finished_at is not None
    assert leases.claim(either, waiting, "w") is None
    assert jobs.cancel(either, waiting).state == JobState.CANCELLED
    asked = jobs.cancel(either, running)
    assert (asked.state, asked.cancel) == ("running", True)
    with pytest.raises(Conflict, match="done already"):
        jobs.cancel(either, ended)
    for number in (0, -1, 99, 10**30):
        with pytest.raises(NotFound):
            jobs.cancel(either, number)


def test_positions_follow_the_queue(either: Settings) -> None:
    rows = [submit(either, key) for key in "abcd"]
    leases.claim(either, rows[0].id or 0, "w")
    jobs.cancel(either, rows[2].id or 0)
    with db.reading(either.database) as session:
        places = jobs.positions(session, [jobs.get(session, row.id or 0) for row in rows])
        assert jobs.positions(session, []) == {}
    assert places == {rows[1].id: 1, rows[3].id: 2}


def test_a_page_of_jobs_takes_as_many_queries_as_one(either: Settings) -> None:
    for number in range(5):
        submit(either, str(number), request={"keys": {"Q8_0": f"key {number}"}})
    asked: list[str] = []

    def note(*arguments: object) -> None:
        asked.append(str(arguments[2]).strip())

    event.listen(db.engine(either.database), "before_cursor_execute", note)
    with db.reading(either.database) as session:
        shown = jobs.describe_all(session, either, jobs.listing(session)[0])
    event.remove(db.engine(either.database), "before_cursor_execute", note)
    assert [job["position"] for job in shown] == [5, 4, 3, 2, 1]
    assert len([text for text in asked if text.startswith("SELECT")]) == 3, asked


def test_listing_pages_and_filters(either: Settings) -> None:
    ids = [submit(either, str(n), repo=f"org/{n % 2}").id for n in range(5)]
    jobs.cancel(either, ids[4] or 0)
    with db.reading(either.database) as session:
        first, cursor = jobs.listing(session, limit=2)
        second, more = jobs.listing(session, limit=2, cursor=cursor)
        third, end = jobs.listing(session, limit=2, cursor=more)
        assert [job.id for job in (*first, *second, *third)] == ids[::-1]
        assert end is None
        assert len(jobs.listing(session, state="active")[0]) == 4
        assert len(jobs.listing(session, state="cancelled")[0]) == 1
        assert len(jobs.listing(session, repo="org/1", kind="convert")[0]) == 2
        for wrong in ({"state": "asleep"}, {"cursor": "x"}, {"cursor": "9" * 40}):
            with pytest.raises(InvalidRequest):
                jobs.listing(session, **wrong)


def test_describe_is_the_document_of_the_api(either: Settings) -> None:
    request = {
        "variants": ["Q8_0", "Q4_0"],
        "options": {"x": 1},
        "keys": {"Q8_0": "k8", "Q4_0": "k4"},
    }
    job = submit(either, request=request, commit="c" * 40, plugin="gguf")
    with db.writing(either.database) as session:
        file = {"path": "a b.gguf", "size": 3, "sha256": "f" * 64}
        session.add(
            Artefact(
                key="k8",
                source="org/model",
                source_commit="c" * 40,
                plugin="gguf",
                plugin_version="1",
                lock_digest="",
                variant="Q8_0",
                repo="hub/org_model-GGUF",
                commit="d" * 40,
                files=[file],
                size=3,
                sandbox="strict",
            )
        )
    with db.reading(either.database) as session:
        shown = jobs.describe(session, either, jobs.get(session, job.id or 0))
    json.dumps(shown)
    assert set(shown) == {
        "id",
        "kind",
        "state",
        "progress",
        "message",
        "position",
        "error",
        "artefacts",
        "repo",
        "revision",
        "commit",
        "plugin",
        "variants",
        "options",
        "created_at",
        "started_at",
        "finished_at",
        "attempt",
    }
    assert (shown["state"], shown["position"], shown["error"]) == ("queued", 1, None)
    (artefact,) = shown["artefacts"]
    assert artefact["variant"] == "Q8_0"
    assert artefact["files"] == [
        file | {"url": f"{either.base_url}/hub/org_model-GGUF/resolve/{'d' * 40}/a%20b.gguf"}
    ]
