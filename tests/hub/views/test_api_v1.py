"""The REST API: what it answers is what its OpenAPI document says."""

from pathlib import Path
from typing import Any

import furnished as rows
import pytest
from fakehub import FakeHub, tiny_model
from flask.testing import FlaskClient
from furnished import add_model, add_plugin
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from published import publish
from pydantic import BaseModel, SecretStr

from hub import artefacts, db, formats, joblog, jobs, schemas
from hub.app import create_app
from hub.asking import Appraisal, Estimate
from hub.config import Settings
from hub.models import Artefact, Job, JobState


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Redis: jobs are accepted all the same."""
    monkeypatch.setattr(jobs, "notify", lambda *_: False)


def valid(document: Any, model: type[BaseModel]) -> Any:
    """The document, which must have exactly the members that its schema describes."""
    assert model.model_validate(document).model_dump() == document
    return document


def add_job(settings: Settings, **columns: Any) -> int:
    row: dict[str, Any] = {"kind": "mirror", "request_key": "k", "repo": "org/model", **columns}
    with db.writing(settings.database) as session:
        job = Job(**row)
        session.add(job)
        session.flush()
        assert job.id is not None
        return job.id


def add_artefact(settings: Settings, commit: str, variant: str, **columns: Any) -> None:
    row: dict[str, Any] = {
        "key": f"{commit} {variant}",
        "source": "org/model",
        "source_commit": commit,
        "plugin": "gguf",
        "plugin_version": "1",
        "lock_digest": "d",
        "variant": variant,
        "repo": "hub/org_model-GGUF",
        "commit": "c" * 40,
        "files": [{"path": f"model-{variant}.gguf", "size": 5, "sha256": "e" * 64}],
        "size": 5,
        "sandbox": "strict",
        **columns,
    }
    with db.writing(settings.database) as session:
        session.add(Artefact(**row))


def test_models_are_listed_page_by_page(settings: Settings, client: FlaskClient) -> None:
    for number in range(5):
        publish(
            settings,
            f"org/model-{number}",
            {"a.bin": b"a" * number},
            facts={"tier": "tiny", "parameters": number, "languages": ["en"]},
        )
    names, cursor = [], ""
    for _ in range(3):
        answer = client.get(f"/api/v1/models?sort=name&limit=2&cursor={cursor}")
        page = valid(answer.json, schemas.ModelPage)
        names += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert names == [f"org/model-{number}" for number in range(5)]
    assert cursor is None
    assert page["items"][0]["size"] == 4
    found = client.get("/api/v1/models?q=MODEL-3&tier=tiny").json["items"]
    assert [item["id"] for item in found] == ["org/model-3"]
    assert client.get("/api/v1/models?tier=large").json["items"] == []


def test_a_model_has_its_facts_files_and_artefacts(settings: Settings, client: FlaskClient) -> None:
    facts = {
        "tier": "micro",
        "parameters": 600_000_000,
        "architecture": "LlamaForCausalLM",
        "license": "mit",
        "languages": ["en", "de"],
        "pipeline_tag": "text-generation",
        "has_chat_template": True,
        "context_length": 4096,
    }
    old = publish(settings, "org/model", {"old.bin": b"old"})
    commit = publish(settings, "org/model", {"sub dir/a.bin": b"abc", "b": b""}, facts=facts)
    for at, variant in ((old, "Q8_0"), (commit, "Q4_K_M"), (commit, "Q8_0")):
        add_artefact(settings, at, variant)
    model = valid(client.get("/api/v1/models/org/model").json, schemas.Model)
    for name, value in facts.items():
        assert model[name] == value
    assert model["commit"] == commit
    assert model["size"] == 3
    assert [file["path"] for file in model["files"]] == ["b", "sub dir/a.bin"]
    assert model["files"][1]["url"] == (
        f"http://127.0.0.1:8080/org/model/resolve/{commit}/sub%20dir/a.bin"
    )
    assert [one["variant"] for one in model["artefacts"]] == ["Q4_K_M", "Q8_0"]
    assert valid(client.get("/api/v1/models").json, schemas.ModelPage)["items"][0]["id"]


def test_a_derived_model_has_what_was_published_in_it(
    settings: Settings, client: FlaskClient
) -> None:
    commit = publish(settings, "org/model", {"a": b"a"})
    publish(
        settings,
        "hub/org_model-GGUF",
        {"model-Q8_0.gguf": b"12345"},
        kind="derived",
        source="org/model",
        plugin="gguf",
    )
    add_artefact(settings, commit, "Q8_0")
    answer = client.get("/api/v1/models?kind=derived")
    (model,) = valid(answer.json, schemas.ModelPage)["items"]
    assert (model["id"], model["source"]) == ("hub/org_model-GGUF", "org/model")
    assert [one["variant"] for one in model["artefacts"]] == ["Q8_0"]


def test_a_job_as_it_waits_and_as_it_failed(settings: Settings, client: FlaskClient) -> None:
    failed = add_job(
        settings,
        state=JobState.FAILED,
        error_kind="gated",
        error_message="It is gated.",
        error_hint="Ask for access.",
    )
    waiting = add_job(settings)
    job = valid(client.get(f"/api/v1/jobs/{waiting}").json, schemas.Job)
    assert (job["state"], job["position"], job["error"]) == ("queued", 1, None)
    job = valid(client.get(f"/api/v1/jobs/{failed}").json, schemas.Job)
    assert job["error"] == {"kind": "gated", "message": "It is gated.", "hint": "Ask for access."}


def test_jobs_are_filtered(settings: Settings, client: FlaskClient) -> None:
    add_job(settings, repo="org/a", state=JobState.DONE)
    add_job(settings, repo="org/b", kind="convert", request_key="b", plugin="gguf")
    page = valid(client.get("/api/v1/jobs").json, schemas.JobPage)
    assert [job["repo"] for job in page["items"]] == ["org/b", "org/a"]
    for query, expected in {
        "state=active": ["org/b"],
        "state=done": ["org/a"],
        "kind=convert": ["org/b"],
        "repo=org/a": ["org/a"],
    }.items():
        found = client.get(f"/api/v1/jobs?{query}").json["items"]
        assert [job["repo"] for job in found] == expected
    first = client.get("/api/v1/jobs?limit=1").json
    second = client.get(f"/api/v1/jobs?limit=1&cursor={first['next']}").json
    assert [job["repo"] for job in second["items"]] == ["org/a"]
    assert second["next"] is None


def test_a_job_is_cancelled(settings: Settings, client: FlaskClient) -> None:
    number = add_job(settings)
    answer = client.delete(f"/api/v1/jobs/{number}")
    assert valid(answer.json, schemas.Job)["state"] == "cancelled"
    assert client.delete(f"/api/v1/jobs/{number}").status_code == 200
    done = add_job(settings, state=JobState.DONE)
    assert client.delete(f"/api/v1/jobs/{done}").status_code == 409


def test_the_log_is_text(settings: Settings, client: FlaskClient) -> None:
    number = add_job(settings)
    assert client.get(f"/api/v1/jobs/{number}/log").text == ""
    with joblog.JobLog(settings, number) as log:
        log.write("<b>größe\n".encode())
    answer = client.get(f"/api/v1/jobs/{number}/log")
    assert (answer.mimetype, answer.text) == ("text/plain", "<b>größe\n")
    assert client.get("/api/v1/jobs/99/log").status_code == 404


@pytest.mark.usefixtures("no_queue")
def test_a_mirror_is_accepted_once(settings: Settings, client: FlaskClient) -> None:
    answer = client.post("/api/v1/mirrors", json={"repo": "org/model"})
    assert answer.status_code == 202
    job = valid(answer.json, schemas.Job)
    assert (job["kind"], job["repo"], job["revision"]) == ("mirror", "org/model", "main")
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    again = client.post("/api/v1/mirrors", json={"repo": "org/model", "revision": "main"})
    assert (again.status_code, again.json["id"]) == (202, job["id"])


@pytest.mark.usefixtures("no_queue")
def test_folders_are_for_loopback_only(
    settings: Settings, client: FlaskClient, tmp_path: Path
) -> None:
    body = {"repo": "org/model", "folder": str(tmp_path)}
    assert client.post("/api/v1/mirrors", json=body).status_code == 202
    admin = "a-long-admin-token-of-a-test"
    public = settings.model_copy(update={"host": "0.0.0.0", "admin_token": SecretStr(admin)})
    answer = (
        create_app(public)
        .test_client()
        .post("/api/v1/mirrors", json=body, headers={"Authorization": f"Bearer {admin}"})
    )
    assert (answer.status_code, answer.json["kind"]) == (403, "folder_not_allowed")


def test_a_conversion_that_is_done_is_answered_with_its_job(
    settings: Settings, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = add_job(settings, kind="convert", state=JobState.DONE, plugin="gguf", progress=1.0)
    with db.reading(settings.database) as session:
        job = jobs.get(session, number)
    asked: list[tuple[Any, ...]] = []

    def request_conversion(*arguments: Any) -> Job:
        asked.append(arguments)
        return job

    monkeypatch.setattr("hub.requests.request_conversion", request_conversion)
    answer = client.post(
        "/api/v1/conversions",
        json={
            "repo": "org/model",
            "plugin": "gguf",
            "variants": ["Q8_0"],
            "options": {"a": 1, "b": True, "c": "x", "d": 0.5},
        },
    )
    assert answer.status_code == 200
    assert valid(answer.json, schemas.Job)["id"] == number
    assert asked == [
        (settings, "org/model", "main", "gguf", ["Q8_0"], {"a": 1, "b": True, "c": "x", "d": 0.5})
    ]


def test_unknown_plugins_are_refused_with_the_known_ones(client: FlaskClient) -> None:
    answer = client.post(
        "/api/v1/conversions", json={"repo": "org/model", "plugin": "nope", "variants": ["x"]}
    )
    assert (answer.status_code, answer.json["kind"]) == (422, "unknown_plugin")
    assert "echo" in answer.json["hint"]


def test_plugins_are_listed(client: FlaskClient) -> None:
    page = valid(client.get("/api/v1/plugins").json, schemas.PluginPage)
    assert "echo" in [plugin["name"] for plugin in page["items"]]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"repo": "\xff"}', 400, "invalid_json"),
        (b"null", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"repo": 7}', 422, "invalid_request"),
        (b'{"repo": "a/b", "x": 1}', 422, "invalid_request"),
        (b'{"repo": "a/b\\u0000"}', 422, "invalid_request"),
        (b'{"repo": "\\ud800/b"}', 422, "invalid_request"),
        (b'{"repo": "a/b", "folder": "relative"}', 422, "invalid_request"),
        (b'{"repo": "../b"}', 400, "bad_repo_name"),
        (b'{"repo": "api/b"}', 400, "bad_repo_name"),
        (b'{"repo": "a/b", "revision": "../x"}', 400, "bad_revision"),
    ],
)
def test_bad_bodies_get_a_problem_document(
    body: bytes, status: int, kind: str, client: FlaskClient
) -> None:
    answer = client.post("/api/v1/mirrors", data=body, content_type="application/json")
    assert answer.status_code == status, answer.text
    assert valid(answer.json, schemas.Problem)["kind"] == kind
    assert answer.mimetype == "application/problem+json"


def test_a_body_must_say_that_it_is_json(client: FlaskClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/api/v1/mirrors", data=b'{"repo": "a/b"}', content_type=kind)
        assert (answer.status_code, answer.json["kind"]) == (400, "not_json")


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "null", "[1]", '"' + "x" * 1001 + '"'])
def test_an_option_that_is_none_is_answered_in_one_sentence(
    value: str, client: FlaskClient
) -> None:
    request = '{"repo": "a/b", "plugin": "echo", "variants": ["plain"], "options": {"sleep": %s}}'
    body = request % value
    answer = client.post("/api/v1/conversions", data=body, content_type="application/json")
    assert answer.status_code == 422
    detail = valid(answer.json, schemas.Problem)["detail"]
    assert detail.startswith("options.sleep: ")
    assert "a finite number" in detail
    assert "boolean" not in detail


@pytest.mark.parametrize(
    "query",
    [
        "jobs?limit=0",
        "jobs?limit=x",
        "jobs?limit=9999",
        "jobs?state=odd",
        "jobs?kind=odd",
        "jobs?cursor=%00",
        "jobs?repo=%00",
        "models?sort=odd",
        "models?q=%00",
        "models?kind=x",
        "models?cursor=..",
        "models?q=" + "x" * 300,
    ],
)
def test_bad_queries_get_a_problem_document(query: str, client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/{query}")
    assert answer.status_code == 422
    assert valid(answer.json, schemas.Problem)["kind"] == "invalid_request"


@given(cursor=st.from_regex(r"[A-Za-z0-9_=-]{1,40}", fullmatch=True) | st.text(max_size=20))
@trying(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cursor_is_an_internal_error(cursor: str, client: FlaskClient) -> None:
    for path in ("models", "jobs"):
        answer = client.get(f"/api/v1/{path}", query_string={"cursor": cursor})
        assert answer.status_code in (200, 400, 422)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.usefixtures("no_queue")
@given(
    body=st.fixed_dictionaries(
        {"repo": json_values, "plugin": json_values, "variants": json_values},
        optional={"revision": json_values, "options": json_values, "folder": json_values},
    )
    | json_values
)
@trying(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_an_internal_error(body: Any, client: FlaskClient) -> None:
    for path in ("mirrors", "conversions"):
        assert client.post(f"/api/v1/{path}", json=body).status_code < 500


def test_the_document_is_openapi(client: FlaskClient) -> None:
    document = client.get("/api/v1/openapi.json").json
    assert document["openapi"].startswith("3.1")
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(_references(document)) <= known
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            problem = operation["responses"]["default"]["content"]
            assert list(problem) == ["application/problem+json"]
            codes = {code for code in operation["responses"] if code.startswith("2")}
            assert codes
    assert document["paths"]["/api/v1/jobs/{job_id}"]["delete"]["security"] == [{}, {"token": []}]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []


def test_options_are_described_from_the_manifest(
    settings: Settings, client: FlaskClient, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    described = {
        "type": "object",
        "properties": {
            "group_size": {
                "type": "integer",
                "enum": [32, 64],
                "default": 64,
                "description": "Weights that share one scale",
            },
            "careful": {"type": "boolean", "default": True, "description": "Takes longer"},
            "ratio": {
                "type": "number",
                "minimum": 0.0,
                "maximum": 1.0,
                "default": 0.5,
                "description": "A share",
            },
        },
        "additionalProperties": False,
    }
    page = valid(client.get("/api/v1/plugins").json, schemas.PluginPage)
    assert {one["name"]: one for one in page["items"]}["toy"]["options_schema"] == described
    known = client.get("/api/v1/openapi.json").json["components"]["schemas"]
    assert described.items() <= known["Options_toy"].items()
    (rule,) = [
        one["then"]["properties"]
        for one in known["ConversionRequest"]["allOf"]
        if one["if"]["properties"]["plugin"]["const"] == "toy"
    ]
    assert rule["options"] == {"$ref": "#/components/schemas/Options_toy"}
    assert rule["variants"] == {"items": {"enum": ["full", "q8", "q4"]}}
    assert "Weights that share one scale" in client.get("/api/v1/docs").text


COSTS = {"q4": Estimate(400, 3000, 50), "q8": Estimate(800, 4000, 70)}


@pytest.fixture
def weighing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """A hub with a model and a plugin that knows what it costs; the options it is asked with."""
    asked: list[dict[str, Any]] = []

    def appraise(*given: Any) -> Appraisal:
        *_, variants, options = given
        asked.append(options)
        return Appraisal(None, {name: COSTS[name] for name in variants})

    monkeypatch.setattr("hub.asking.appraise", appraise)
    add_plugin(tmp_path / "plugins", settings)
    return asked


def dry_run(client: FlaskClient, **changes: Any) -> Any:
    body = {"repo": "org/model", "plugin": "toy", "variants": ["q8", "q4"], **changes}
    return client.post("/api/v1/conversions?dry_run=true", json=body)


def test_a_dry_run_tells_what_a_conversion_takes(
    settings: Settings, client: FlaskClient, weighing: list[dict[str, Any]]
) -> None:
    sha = add_model(settings)
    answer = dry_run(client, options={"group_size": 32})
    assert answer.status_code == 200
    found = valid(answer.json, schemas.Prospect)
    assert (found["repo"], found["commit"], found["plugin"]) == ("org/model", sha, "toy")
    assert (found["mirrored"], found["download"]) == (True, 0)
    assert found["options"] == {"group_size": 32, "careful": True, "ratio": 0.5}
    assert found["options"] == weighing[0]
    assert found["variants"] == [
        {
            "variant": name,
            "state": "missing",
            "repo": "hub/org_model-TOY",
            "size": COSTS[name].size,
            "memory": COSTS[name].memory,
            "scratch": COSTS[name].scratch,
            "rough": False,
            "seconds": None,
        }
        for name in ("q8", "q4")
    ]
    assert found["disk"]["needed"] == int((400 + 800 + 800 + 70) * 1.05)
    assert found["disk"]["free"] > 10**6
    assert found["memory"]["needed"] == 4000
    assert (found["seconds"], found["job"], found["refusal"]) == (None, None, None)
    with db.reading(settings.database) as session:
        assert jobs.listing(session) == ([], None), "nothing was queued"


@pytest.mark.usefixtures("no_queue", "weighing")
def test_a_dry_run_knows_what_is_there_and_what_is_coming(
    settings: Settings, client: FlaskClient
) -> None:
    sha = add_model(settings)
    body = {"repo": "org/model", "plugin": "toy", "variants": ["q4"]}
    job = client.post("/api/v1/conversions", json=body).json
    found = valid(dry_run(client, variants=["q4"]).json, schemas.Prospect)
    assert found["job"] == job["id"]
    assert found["variants"][0]["state"] == "active"
    fmt = formats.get(settings, "toy")
    key = artefacts.artefact_key("org/model", sha, fmt, "q8", fmt.validate_options({}))
    rows.add_artefact(settings, sha, key=key)
    found = valid(dry_run(client).json, schemas.Prospect)
    assert found["job"] is None, "no job makes both"
    assert [one["state"] for one in found["variants"]] == ["ready", "active"]
    ready, coming = found["variants"]
    assert (ready["size"], ready["memory"]) == (8, None)
    assert found["disk"]["needed"] == int((400 + 400 + 50) * 1.05)
    assert coming["size"] == 400


@pytest.mark.usefixtures("weighing")
def test_a_dry_run_carries_the_refusal(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(settings)
    small = settings.model_copy(update={"memory_limit": 3999})
    found = valid(dry_run(create_app(small).test_client()).json, schemas.Prospect)
    assert found["memory"] == {"needed": 4000, "allowed": 3999}
    refusal = valid(found["refusal"], schemas.Problem)
    assert (refusal["status"], refusal["kind"]) == (507, "memory_too_small")
    monkeypatch.setattr("hub.asking.appraise", lambda *_: Appraisal("It is no toy."))
    found = valid(dry_run(create_app(settings).test_client()).json, schemas.Prospect)
    assert (found["refusal"]["kind"], found["refusal"]["detail"]) == (
        "not_supported",
        "It is no toy.",
    )
    assert found["variants"][0]["size"] is None


@pytest.mark.parametrize(
    ("changes", "status", "kind"),
    [
        ({"variants": ["q99"]}, 422, "unknown_variant"),
        ({"variants": []}, 422, "invalid_request"),
        ({"plugin": "tin"}, 422, "unknown_plugin"),
        ({"options": {"ratio": 7}}, 422, "bad_option"),
        ({"options": {"size": 7}}, 422, "unknown_option"),
        ({"revision": "nowhere"}, 404, "revision_not_found"),
        ({"revision": "../x"}, 400, "bad_revision"),
        ({"dry_run": True}, 422, "invalid_request"),
    ],
)
@pytest.mark.usefixtures("weighing")
def test_a_dry_run_of_nonsense_fails_as_the_request_does(
    settings: Settings, client: FlaskClient, changes: dict[str, Any], status: int, kind: str
) -> None:
    add_model(settings)
    answer = dry_run(client, **changes)
    assert (answer.status_code, answer.json["kind"]) == (status, kind)
    body = {"repo": "org/model", "plugin": "toy", "variants": ["q4"], **changes}
    real = client.post("/api/v1/conversions", json=body)
    assert real.json == answer.json


@pytest.mark.usefixtures("weighing")
def test_a_dry_run_of_what_is_not_mirrored_asks_upstream(settings: Settings) -> None:
    with FakeHub() as upstream:
        upstream.add("org/model", tiny_model(4096))
        client = create_app(settings.model_copy(update={"upstream": upstream.url})).test_client()
        found = valid(dry_run(client).json, schemas.Prospect)
    assert (found["mirrored"], found["refusal"]) == (False, None)
    assert found["download"] > 4096 * 256
    assert found["disk"]["needed"] > found["download"]


def test_a_dry_run_needs_the_right_to_write(settings: Settings) -> None:
    public = settings.model_copy(
        update={"host": "0.0.0.0", "admin_token": SecretStr("a-long-admin-token-of-a-test")}
    )
    answer = dry_run(create_app(public).test_client())
    assert (answer.status_code, answer.json["kind"]) == (401, "token_needed")


def test_a_dry_run_is_yes_or_no(client: FlaskClient) -> None:
    body = {"repo": "org/model", "plugin": "toy", "variants": ["q4"]}
    answer = client.post("/api/v1/conversions?dry_run=perhaps", json=body)
    assert (answer.status_code, answer.json["kind"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("result", "check"),
    [
        ({}, {"state": "none", "said": "not checked"}),
        (
            {"runtime": "rt 1", "ran": False, "note": "It needs a GPU."},
            {"state": "not_run", "said": "not run here: It needs a GPU."},
        ),
        ({"runtime": "rt 1", "tokens": 16}, {"state": "passed", "said": None}),
    ],
)
def test_what_was_not_run_has_not_passed(
    settings: Settings, client: FlaskClient, result: dict[str, Any], check: dict[str, Any]
) -> None:
    commit = publish(settings, "org/model", {"a": b"a"})
    add_artefact(settings, commit, "Q8_0", check_result=result)
    model = valid(client.get("/api/v1/models/org/model").json, schemas.Model)
    assert model["artefacts"][0]["check"] == {
        **check,
        "said": check["said"] or "passed (generated 16 tokens in rt 1)",
    }


def test_its_page_for_people_needs_no_other_site(client: FlaskClient) -> None:
    answer = client.get("/api/v1/docs")
    assert answer.status_code == 200
    for path in ("/api/v1/mirrors", "/api/v1/jobs/{job_id}/events"):
        assert path in answer.text
    assert 'href="#schema-Job"' in answer.text
    assert "//" not in answer.text.replace("http://", "").replace("https://", "")
    assert 'src="http' not in answer.text
    assert "<style" not in answer.text
