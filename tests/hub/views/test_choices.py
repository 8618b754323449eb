"""What the ticks of the request form come to: one job a format, all of them or none."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from furnished import add_artefact, add_job, add_model, add_plugin
from werkzeug.datastructures import MultiDict

from hub import db, jobs, queue
from hub.app import create_app
from hub.asking import Appraisal, Estimate
from hub.config import Settings
from hub.models import Job, JobState
from hub.views.choices import Choice
from hub.views.verdicts import Verdicts

GB = 10**9


class Plugins:
    """What the plugins of the test say, in place of processes that are started."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuses: dict[str, str] = {}
        self.costs: dict[str, Estimate] = {}
        self.slow = threading.Event()
        self.slow.set()

    def appraise(
        self, _settings: object, fmt: Any, _model: object, variants: Any = (), options: Any = None
    ) -> Appraisal:
        self.asked.append((fmt.name, dict(options or {})))
        assert self.slow.wait(120)
        if fmt.name in self.refuses:
            return Appraisal(self.refuses[fmt.name])
        size = 8 * GB // (options or {}).get("group_size", 8)
        return Appraisal(
            None, {name: self.costs.get(name, Estimate(size, 2 * GB, 10**6)) for name in variants}
        )


@pytest.fixture
def plugins(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """The plugins toy and tin, ready, and a model that they know."""
    said = Plugins()
    monkeypatch.setattr("hub.asking.appraise", said.appraise)
    monkeypatch.setattr("hub.views.model.verdicts", Verdicts())
    monkeypatch.setattr(queue, "ring", lambda *_: None)
    fmt = add_plugin(tmp_path / "plugins", settings)
    tin = tmp_path / "plugins" / "tin"
    shutil.copytree(fmt.folder, tin)
    manifest = (tin / "plugin.toml").read_text()
    manifest = manifest.replace('"toy"', '"tin"').replace('"Toy"', '"Tin"').replace("-TOY", "-TIN")
    (tin / "plugin.toml").write_text(manifest)
    place = settings.environments
    shutil.copytree(place / "toy", place / "tin", symlinks=True)
    add_model(settings)
    return said


@pytest.fixture
def client(settings: Settings) -> Iterator[FlaskClient]:
    # Room for whatever is asked for here: how full this machine is says nothing about the hub.
    with create_app(settings.model_copy(update={"memory_limit": 5 * GB})).test_client() as client:
        yield client


def send(client: FlaskClient, *variants: str, status: int = 200, **fields: str) -> str:
    form: dict[str, Any] = {"variant": list(variants), **fields}
    response = client.post("/org/model/convert", data=form)
    assert response.status_code == status, response.text
    return response.location if status == 303 else response.text


def words(page: str) -> str:
    text = re.sub(r"<[^>]+>", " ", page)
    return " ".join(text.replace("\u00a0", " ").replace("&#39;", "'").split())


def queued(settings: Settings) -> list[Job]:
    with db.reading(settings.database) as session:
        return jobs.listing(session)[0]


def test_nothing_is_queued_by_looking(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    seen = words(send(client, "toy:q4", "toy:q8", "tin:q4", show="part"))
    assert "Toy one job q4, q8 in hub/org_model-TOY" in seen
    assert "Files 250 MB Disk 395 MB of" in seen
    assert "Memory 2 GB of 5 GB allowed" in seen
    assert "Time unknown yet" in seen
    assert "Tin one job q4 in hub/org_model-TIN" in seen
    assert "Together Files 375 MB Disk 526 MB" in seen
    assert "cannot be made" not in seen
    assert queued(settings) == []


def test_the_page_keeps_what_was_filled_in(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    fields = {"option:toy:group_size": "32", "option:toy:careful": "false", "show": "page"}
    page = send(client, "toy:q4", **fields)
    assert 'value="toy:q4" id="pick-toy:q4" checked' in page
    assert 'value="toy:q8" id="pick-toy:q8" checked' not in page
    assert '<option value="32" selected>' in page
    assert re.search(r'id="option:toy:careful" value="true">', page)
    assert '<details class="option-box" id="set-toy" open>' in page
    assert '<details class="option-box" id="set-tin">' in page
    assert "Files 250 MB" in words(page)
    assert 'data-page="/org/model' in page
    assert queued(settings) == []


def test_an_answer_is_remembered(client: FlaskClient, plugins: Plugins) -> None:
    for variants in (["toy:q4"], ["toy:q4", "toy:full"], ["toy:q8"]):
        send(client, *variants, show="part")
    assert [name for name, _ in plugins.asked] == ["toy"]
    send(client, "toy:q8", show="part", **{"option:toy:group_size": "32"})
    assert plugins.asked[1][1]["group_size"] == 32
    client.get("/org/model")
    assert sorted(name for name, _ in plugins.asked) == ["tin", "toy", "toy"]


def test_all_made_jobs_are_where_the_visitor_lands(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    add_job(settings, repo="org/model", state=JobState.DONE)
    location = send(client, "toy:q4", "tin:q4", "tin:q8", status=303)
    made = queued(settings)[:2]
    assert {(job.plugin, tuple(job.request["variants"])) for job in made} == {
        ("toy", ("q4",)),
        ("tin", ("q4", "q8")),
    }
    page = client.get(location).text
    assert [int(found) for found in re.findall(r'aria-label="Job (\d+)"', page)] == sorted(
        job.id or 0 for job in made
    )
    assert "You asked for these 2 of org/model" in words(page)
    again = send(client, "toy:q4", "tin:q4", "tin:q8", status=303)
    assert again == location, "the same request is the same jobs"


def test_what_one_format_refuses_keeps_the_others_waiting(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    plugins.refuses["tin"] = "It is <no> tin."
    page = send(client, "toy:q4", "tin:q4", status=422)
    assert queued(settings) == [], "all of it or nothing"
    assert "It is &lt;no&gt; tin." in page
    assert 'role="alert"' in page
    assert 'id="pick-toy:q4" checked' in page
    assert "Nothing was asked for." in page
    assert '<button class="quiet" name="partly" value="1">Request all but Tin</button>' in page
    location = send(client, "toy:q4", "tin:q4", status=303, partly="1")
    (job,) = queued(settings)
    assert (job.plugin, location) == ("toy", f"/jobs/{job.id}")


def test_nothing_is_left_when_all_is_refused(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    plugins.refuses = {"tin": "No.", "toy": "Neither."}
    page = send(client, "toy:q4", "tin:q4", status=422, partly="1")
    assert "2 of 2 jobs cannot be made" in words(page)
    assert 'name="partly"' not in page
    assert queued(settings) == []


def test_what_does_not_fit_has_its_figures(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    plugins.costs = {"full": Estimate(3 * GB, 6 * GB, 0), "q8": Estimate(10**18, GB, 0)}
    seen = words(client.get("/org/model").text)
    assert "does not fit needs 6 GB of memory, 5 GB may be used" in seen
    assert re.search(r"does not fit needs [\d,.]+ TB of disk, [\d.]+ [GMT]B are free", seen)
    assert seen.count("does not fit") == 4
    page = client.get("/org/model").text
    assert 'aria-label="Request full"' not in page
    assert 'id="pick-toy:full"' in page, "with other options it may fit"
    seen = words(send(client, "toy:full", status=507))
    assert "needs about 6.0 GB of memory, and 5.0 GB may be used" in seen
    assert "1 of 1 job cannot be made" in seen
    assert queued(settings) == []


def test_jobs_that_fit_alone_may_not_fit_together(
    client: FlaskClient, settings: Settings, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.costs = {"q4": Estimate(2 * GB, GB, 0)}
    usage = shutil.disk_usage(settings.data)._replace(free=5 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert send(client, "toy:q4", show="part").count("one job") == 1
    seen = words(send(client, "toy:q4", "tin:q4", status=507))
    assert "These 2 jobs together need about 6.3 GB of disk, and 5.0 GB are free." in seen
    assert queued(settings) == []


def test_estimates_are_on_the_page_and_rough_ones_are_marked(
    client: FlaskClient, plugins: Plugins
) -> None:
    plugins.costs = {
        "q8": Estimate(634 * 10**6, 2 * GB, 0),
        "q4": Estimate(335 * 10**6, GB, 0, rough=True),
    }
    page = client.get("/org/model").text.replace("\u00a0", " ")
    assert 'title="Estimate of the plugin">634 MB' in page
    assert re.search(r'title="Estimate: parameters . bits ÷ 8">≈ 335 MB', page)
    seen = words(page)
    assert "634 MB 2 GB Nearly all of it" in seen
    assert "≈ 335 MB ≥ 1 GB Default: small" in seen
    seen = words(send(client, "toy:q4", show="part"))
    assert "Files ≈ 335 MB" in seen
    assert "Memory at least 1 GB of" in seen


def test_nobody_waits_for_a_slow_plugin(
    client: FlaskClient, settings: Settings, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("hub.views.verdicts.PATIENCE", "hub.views.model.PATIENCE"):
        monkeypatch.setattr(name, 0.05)
    monkeypatch.setattr("hub.views.model.SECONDS", 0.05)
    plugins.slow.clear()
    page = client.get("/org/model").text
    assert "Asking Toy whether it can convert this model" in page
    assert '<div id="grid-toy" data-refresh data-active>' in page
    part = send(client, "toy:q4", "tin:q4", show="part")
    assert "data-asking" in part
    assert "Asking Toy what it will take" in part
    page = send(client, "toy:q4", status=503)
    assert "Toy did not say yet what it will take." in words(page)
    assert queued(settings) == []
    plugins.slow.set()
    monkeypatch.setattr("hub.views.model.PATIENCE", 60)
    part = send(client, "toy:q4", "tin:q4", show="part")
    assert "data-asking" not in part
    assert sorted(name for name, _ in plugins.asked) == ["tin", "toy"]


def test_what_is_there_or_coming_is_said(
    client: FlaskClient, settings: Settings, plugins: Plugins
) -> None:
    location = send(client, "toy:q4", status=303)
    number = location.rsplit("/", 1)[1]
    assert f"job {number} does this already" in send(client, "toy:q4", show="part")
    assert send(client, "toy:q4", status=303) == location


@pytest.mark.parametrize(
    ("variant", "fields", "status", "said"),
    [
        ("", {}, 400, "No variant was chosen. Tick at least one."),
        ("toy:q99", {}, 422, "Toy has no variant 'q99'."),
        ("nothing:q4", {}, 422, "There is no plugin 'nothing'."),
        ("no colon", {}, 422, "There is no plugin 'no colon'."),
        ("toy:q4", {"option:toy:ratio": "7"}, 422, "'7' is not a value of the option 'ratio'."),
        ("toy:q4", {"option:toy:what": "7"}, 422, "Toy has no option 'what'."),
    ],
)
def test_nonsense_is_answered_on_the_form(
    client: FlaskClient,
    plugins: Plugins,
    settings: Settings,
    variant: str,
    fields: dict[str, str],
    status: int,
    said: str,
) -> None:
    page = send(client, *([variant] if variant else []), status=status, **fields)
    assert said in words(page)
    assert 'id="formats"' in page
    assert queued(settings) == []


@pytest.mark.parametrize(
    ("address", "fields", "status"),
    [
        ("/org/nothing/convert", {"variant": "toy:q4"}, 404),
        ("/org/model/convert", {"variant": "toy:q4", "revision": "../x"}, 400),
        ("/org/model/convert", {"variant": "toy:q4", "revision": "v9", "show": "part"}, 404),
        ("/hub/org_model-TOY/convert", {"variant": "toy:q4"}, 422),
    ],
)
def test_what_is_not_there_is_an_error_page(
    client: FlaskClient,
    settings: Settings,
    plugins: Plugins,
    address: str,
    fields: dict[str, str],
    status: int,
) -> None:
    add_artefact(settings, "a" * 40)
    response = client.post(address, data=fields)
    assert response.status_code == status
    assert "error-page" in response.text


def test_who_reloads_the_answer_gets_the_page(client: FlaskClient, plugins: Plugins) -> None:
    response = client.get("/org/model/convert")
    assert (response.status_code, response.location) == (302, "/org/model#formats")


def test_jobs_that_an_address_names(client: FlaskClient, settings: Settings) -> None:
    for number in range(3):
        add_job(settings, repo=f"org/model-{number}")
    page = client.get("/jobs?made=3,1,1,x,,%FF").text
    assert re.findall(r'aria-label="Job (\d+)"', page) == ["3", "1"]
    assert client.get("/jobs?made=99").status_code == 404
    assert len(re.findall(r'aria-label="Job (\d+)"', client.get("/jobs?made=x").text)) == 3


def test_a_choice_is_read_from_a_form() -> None:
    form = MultiDict(
        [
            ("variant", "toy:q4"),
            ("variant", "tin:q8"),
            ("variant", "toy:a:b"),
            ("option:toy:careful", "false"),
            ("option:toy:careful", "true"),
            ("option:toy:ratio", ""),
            ("option:toy", "x"),
            ("other", "x"),
        ]
    )
    choice = Choice.of_form(form)
    assert choice.variants == {"toy": ["q4", "a:b"], "tin": ["q8"]}
    assert choice.options == {"toy": {"careful": "true", "": "x"}}
    assert Choice.of_form(MultiDict([*form.items(multi=True), ("only", "tin:q4")])).variants == {
        "tin": ["q4"]
    }
    many = MultiDict([("variant", f"p{number}:x") for number in range(1000)])
    assert len(Choice.of_form(many).variants) == 64
