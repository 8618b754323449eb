"""Hugging Face's API: its bodies and headers, and its own clients against a real server."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from published import publish
from pydantic import SecretStr
from servers import gunicorn

from hub import db, repos, tokens
from hub.app import create_app
from hub.blobs import BlobStore, git_sha1, lfs_pointer, lfs_pointer_sha1
from hub.commandlines import commands
from hub.config import ROOT, Settings
from hub.facts import facts
from hub.models import Artefact
from hub.safetensors import parse_header

WEIGHTS = b"weights" * 100
FILES = {
    "config.json": b"{}",
    "README.md": b"# A model\n",
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"onnx",
    "onnx/int8/model.onnx": b"int8",
}
FACTS = {
    "parameters": 596_049_920,
    "tier": "micro",
    "architecture": "Qwen3ForCausalLM",
    "model_type": "qwen3",
    "dtypes": {"BF16": 596_049_920},
    "license": "apache-2.0",
    "languages": ["en", "de"],
    "pipeline_tag": "text-generation",
    "tags": ["chat", "50%_off"],
    "base_model": ["org/base"],
}
ADMIN = "a-long-admin-token-of-a-test"
MODEL = "/api/models/org/model"


@pytest.fixture
def commit(settings: Settings) -> str:
    """The commit of org/model, which is also a release and a pull request."""
    publish(settings, "org/model", FILES, facts=FACTS, large=["model.safetensors"], ref="v1/rc")
    return publish(
        settings, "org/model", FILES, facts=FACTS, large=["model.safetensors"], ref="refs/pr/1"
    )


@pytest.fixture
def client(settings: Settings, commit: str) -> FlaskClient:
    return create_app(settings).test_client()


def test_a_model_is_described(client: FlaskClient, commit: str) -> None:
    answer = client.get(MODEL)
    found = answer.get_json()
    assert answer.headers["X-Repo-Commit"] == found["sha"] == commit
    assert found["id"] == found["modelId"] == "org/model"
    assert found["author"] == "org"
    assert found["createdAt"].endswith("Z")
    assert found["config"] == {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    assert found["safetensors"] == {"parameters": {"BF16": 596_049_920}, "total": 596_049_920}
    assert found["cardData"]["license"] == "apache-2.0"
    assert found["cardData"]["language"] == ["en", "de"]
    assert found["usedStorage"] == sum(map(len, FILES.values()))
    assert found["siblings"] == [{"rfilename": path} for path in sorted(FILES)]


@pytest.mark.parametrize(
    "revision", ["main", "refs/pr/1", "refs%2Fpr%2F1", "v1%2Frc", "refs%2Fheads%2Fmain"]
)
def test_every_name_of_a_commit_will_do(revision: str, client: FlaskClient, commit: str) -> None:
    assert client.get(f"{MODEL}/revision/{revision}").get_json()["sha"] == commit
    assert client.get(f"{MODEL}/commits/{revision}").get_json()[0]["id"] == commit
    answer = client.post(f"{MODEL}/paths-info/{revision}", data={"paths": "config.json"})
    assert len(answer.get_json()) == 1
    # The application's own client does not hand the request line on; the servers do.
    environ = {"RAW_URI": f"{MODEL}/tree/{revision}/onnx%2Fint8"}
    answer = client.get(f"{MODEL}/tree/{revision}/onnx/int8", environ_overrides=environ)
    assert [item["path"] for item in answer.get_json()] == ["onnx/int8/model.onnx"]


def test_large_files_have_two_digests_under_three_names(client: FlaskClient) -> None:
    sha256, size = hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS)
    pointer = lfs_pointer_sha1(sha256, size)
    about = {"size": size, "pointerSize": len(lfs_pointer(sha256, size))}
    siblings = client.get(f"{MODEL}?blobs=true").get_json()["siblings"]
    [sibling] = [item for item in siblings if item["rfilename"] == "model.safetensors"]
    assert sibling["lfs"] == {"sha256": sha256, **about}
    assert (sibling["blobId"], sibling["size"]) == (pointer, size)
    [item] = [i for i in client.get(f"{MODEL}/tree/main").get_json() if "lfs" in i]
    assert item["lfs"] == {"oid": sha256, **about}
    assert (item["oid"], item["size"]) == (pointer, size)
    [small] = [item for item in siblings if item["rfilename"] == "config.json"]
    assert small == {"rfilename": "config.json", "size": 2, "blobId": git_sha1(b"{}")}


def test_a_tree_is_one_page_in_order(client: FlaskClient, commit: str) -> None:
    def paths(query: str) -> list[str]:
        return [item["path"] for item in client.get(f"{MODEL}/tree/{query}").get_json()]

    top = ["README.md", "config.json", "model.safetensors", "onnx"]
    inside = ["onnx/int8", "onnx/int8/model.onnx", "onnx/model.onnx"]
    assert paths("main") == paths("main/") == top
    assert paths(f"{commit}?recursive=true") == paths("main?recursive=True") == top + inside
    assert paths("main/onnx") == ["onnx/int8", "onnx/model.onnx"]
    assert paths("main/onnx?recursive=1") == inside
    folders = [i for i in client.get(f"{MODEL}/tree/main").get_json() if i["type"] == "directory"]
    assert len(folders[0]["oid"]) == 40
    [last] = {
        item["lastCommit"]["id"] for item in client.get(f"{MODEL}/tree/main?expand=1").get_json()
    }
    assert last == commit


@pytest.mark.parametrize("folder", ["additional_chat_templates", "config.json", "onn"])
def test_a_folder_that_is_not_there_is_remembered(
    folder: str, client: FlaskClient, commit: str
) -> None:
    answer = client.get(f"{MODEL}/tree/main/{folder}")
    assert answer.status_code == 404
    assert answer.headers["X-Error-Code"] == "EntryNotFound"
    assert answer.headers["X-Repo-Commit"] == commit
    assert folder in answer.get_json()["error"]


@pytest.mark.parametrize("way", ["form", "json"])
def test_paths_are_asked_about_without_a_token_and_from_anywhere(
    way: str, settings: Settings, commit: str
) -> None:
    public = settings.model_copy(update={"host": "0.0.0.0", "admin_token": SecretStr(ADMIN)})
    client = create_app(public).test_client()
    body: dict[str, Any] = {"paths": ["onnx", "nothing", "../x", "config.json"], "expand": "False"}
    answer = client.post(
        f"{MODEL}/paths-info/main",
        headers={"Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"},
        **({"data": body} if way == "form" else {"json": body}),  # type: ignore[arg-type]
    )
    assert answer.status_code == 200
    assert [item["path"] for item in answer.get_json()] == ["onnx", "config.json"]
    assert "lastCommit" not in answer.get_json()[0]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    # It is the only one: whatever else comes by POST still needs both.
    assert client.post("/api/v1/mirrors", json={"repo": "a/b"}).status_code == 401


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"paths": [1]}', b"[" * 100_000])
def test_a_body_that_names_no_paths_is_refused(body: bytes, client: FlaskClient) -> None:
    answer = client.post(
        f"{MODEL}/paths-info/main", data=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.get_json()["error"]


def test_names_of_commits_are_listed_by_kind(client: FlaskClient, commit: str) -> None:
    def names(query: str = "") -> dict[str, list[str]]:
        found = client.get(f"{MODEL}/refs{query}").get_json()
        return {kind: [item["name"] for item in items] for kind, items in found.items()}

    assert names() == {"branches": ["main", "v1/rc"], "tags": [], "converts": []}
    assert names("?include_prs=1")["pullRequests"] == ["pr/1"]
    main = client.get(f"{MODEL}/refs").get_json()["branches"][0]
    assert main == {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}


def test_commits_are_listed_back_to_the_first(client: FlaskClient, settings: Settings) -> None:
    first = publish(settings, "hub/x", {"a": b"1"}, kind="derived")
    with db.writing(settings.database) as session:
        entry = repos.Entry("a", *_stored(settings, b"2"))
        for sha, parent in (("2" * 40, first), ("3" * 40, "2" * 40)):
            repos.add_commit(
                session,
                name="hub/x",
                kind="derived",
                sha=sha,
                parent=parent,
                entries=[entry],
                message=f"Title {sha[0]}\n\nMore",
            )
    answer = client.get("/api/models/hub/x/commits/main")
    assert [item["id"] for item in answer.get_json()] == ["3" * 40, "2" * 40, first]
    assert answer.get_json()[0]["title"] == "Title 3"
    assert answer.headers["X-Total-Count"] == "3"
    older = client.get(f"/api/models/hub/x/commits/{first}").get_json()
    assert [item["id"] for item in older] == [first]


def _stored(settings: Settings, data: bytes) -> tuple[str, int, str]:
    stored = BlobStore(settings.blobs).add_bytes(data)
    return stored.sha256, stored.size, stored.git_sha1


ERRORS = [
    ("/api/models/org/other", 404, "RepoNotFound"),
    ("/api/models/gpt2", 404, "RepoNotFound"),
    ("/api/models/gpt2/revision/main", 404, "RepoNotFound"),
    ("/api/models/org/other/tree/main", 404, "RepoNotFound"),
    ("/api/models/org/other/refs", 404, "RepoNotFound"),
    ("/api/models/org/other/auth-check", 404, "RepoNotFound"),
    (f"{MODEL}/revision/v9", 404, "RevisionNotFound"),
    (f"{MODEL}/tree/v9", 404, "RevisionNotFound"),
    (f"{MODEL}/commits/v9", 404, "RevisionNotFound"),
    (f"{MODEL}/tree/main/../x", 400, "BadPath"),
    ("/api/models/org/mod--el", 400, "BadRepoName"),
    ("/api/models?sort=beauty", 400, "BadSort"),
    ("/api/models?cursor=x", 400, "BadCursor"),
    ("/api/models?num_parameters=many", 400, "BadNumParameters"),
    ("/api/models?filter=%00", 400, "InvalidRequest"),
    (f"/api/models?filter={'a,' * 100}", 400, "QueryTooLong"),
    (f"/api/models?search={'a+' * 1000}", 400, "QueryTooLong"),
    (f"/api/models?{'filter=a&' * 100}", 400, "QueryTooLong"),
]


def test_errors_are_told_as_clients_expect(client: FlaskClient) -> None:
    for path, status, code in ERRORS:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, code), path
        assert answer.headers["X-Error-Message"]
        assert answer.get_json()["error"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Repo-Commit" not in answer.headers


def test_no_answer_names_xet(client: FlaskClient) -> None:
    for path in ("?blobs=true", "/tree/main?recursive=true&expand=true", "/refs", "/commits/main"):
        answer = client.get(f"{MODEL}{path}")
        assert "xet" not in answer.get_data(as_text=True).lower()
        assert not [name for name, _ in answer.headers if "xet" in name.lower()]


def test_scripts_of_other_sites_may_ask(client: FlaskClient) -> None:
    answer = client.options(f"{MODEL}/paths-info/main", headers={"Origin": "https://example.org"})
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]


def test_a_token_has_a_name(client: FlaskClient, settings: Settings) -> None:
    with db.writing(settings.database) as session:
        text, _ = tokens.create(session, "laptop", "read")
    found = client.get("/api/whoami-v2", headers={"Authorization": f"Bearer {text}"}).get_json()
    assert (found["type"], found["name"], found["orgs"]) == ("user", "laptop", [])
    assert found["auth"]["accessToken"] == {"displayName": "laptop", "role": "read"}
    for headers, code, message in (
        ({}, "TokenNeeded", "No token was sent"),
        (
            {"Authorization": "Bearer hf_wrong"},
            "InvalidCredentials",
            "Invalid credentials in Authorization header",
        ),
    ):
        answer = client.get("/api/whoami-v2", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["X-Error-Code"] == code
        assert answer.headers["X-Error-Message"] == answer.get_json()["error"] == message
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def catalogue(request: pytest.FixtureRequest, settings: Settings) -> FlaskClient:
    """A hub with five models."""
    if request.param == "postgres":
        settings = request.getfixturevalue("postgres_settings")
    publish(settings, "org/model", FILES, facts=FACTS)
    for name, parameters in (("org/tiny", 50_000_000), ("Org/big", 32 * 10**9)):
        publish(settings, name, {"a": name.encode()}, facts={"parameters": parameters})
    publish(
        settings,
        "hub/org_model-GGUF",
        {"m.gguf": b"gguf"},
        kind="derived",
        facts={"parameters": 596_049_920, "license": "apache-2.0"},
        source="org/model",
        plugin="gguf",
    )
    publish(settings, "org_x/unknown", {"a": b"?"})
    return create_app(settings).test_client()


ALL = {"org/model", "org/tiny", "Org/big", "hub/org_model-GGUF", "org_x/unknown"}


FOUND: list[tuple[str, set[str]]] = [
    ("", ALL),
    ("search=model", {"org/model", "hub/org_model-GGUF"}),
    ("author=org", {"org/model", "org/tiny", "Org/big"}),
    ("filter=gguf", {"hub/org_model-GGUF"}),
    ("filter=safetensors&author=org&filter=en,de", {"org/model"}),
    ("filter=en&filter=fr", set()),
    ("filter=50%25_off", {"org/model"}),
    ("filter=50%25", set()),
    ("filter=license:apache-2.0", {"org/model", "hub/org_model-GGUF"}),
    ("filter=base_model:org/model", {"hub/org_model-GGUF"}),
    ("filter=base_model:quantized:org/model", {"hub/org_model-GGUF"}),
    ("filter=base_model:org/base", {"org/model"}),
    ("pipeline_tag=text-generation", {"org/model"}),
    ("num_parameters=min:100M,max:1.5B", {"org/model", "hub/org_model-GGUF"}),
    ("num_parameters=max:0.05b", {"org/tiny"}),
    ("num_parameters=min:32B", {"Org/big"}),
    ("gated=True", set()),
]


def test_models_are_found(catalogue: FlaskClient) -> None:
    for query, names in FOUND:
        found = catalogue.get(f"/api/models?{query}").get_json()
        assert {item["id"] for item in found} == names, query
        assert all("siblings" not in item for item in found)


def test_what_is_shown_as_a_tag_is_found_by_it(catalogue: FlaskClient) -> None:
    for item in catalogue.get("/api/models").get_json():
        for tag in item["tags"]:
            found = catalogue.get("/api/models", query_string={"filter": tag}).get_json()
            assert item["id"] in {one["id"] for one in found}, tag


@pytest.mark.parametrize("sort", ["lastModified", "createdAt", "downloads"])
def test_pages_of_a_list_are_linked_by_whole_addresses(sort: str, catalogue: FlaskClient) -> None:
    settings: Settings = catalogue.application.config["SETTINGS"]
    names: list[str] = []
    path = f"/api/models?sort={sort}&limit=2&full=true&filter=safetensors"
    for _ in range(2):
        answer = catalogue.get(path)
        names += [item["id"] for item in answer.get_json()]
        assert all(item["siblings"] for item in answer.get_json())
        link = answer.headers.get("Link", "")
        path = link.partition(">")[0].removeprefix(f"<{settings.base_url}")
        assert not link or path.startswith("/api/models?")
    assert not link
    assert names == ["org_x/unknown", "Org/big", "org/tiny", "org/model"]


@pytest.mark.parametrize("more", ["full=true", "expand=siblings"])
def test_a_page_with_files_is_short_and_leads_on(
    more: str, catalogue: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.views.hf_api.WHOLE", 3)
    settings: Settings = catalogue.application.config["SETTINGS"]
    assert "Link" not in catalogue.get("/api/models?limit=1000").headers
    everything = [item["id"] for item in catalogue.get("/api/models?limit=1000").get_json()]
    names: list[str] = []
    path = f"/api/models?limit=1000&{more}"
    while path:
        answer = catalogue.get(path)
        assert len(answer.get_json()) <= 3
        assert all(item["siblings"] for item in answer.get_json())
        names += [item["id"] for item in answer.get_json()]
        link = answer.headers.get("Link", "")
        path = link.partition(">")[0].removeprefix(f"<{settings.base_url}")
    assert names == everything
    assert len(names) > 3


# Its own clients, over a server -------------------------------------------------------------

SAMPLE = ROOT / "samples" / "slmhub" / "stdlib-llama-3m"
GGUF = b"GGUF" + bytes(2000)
NAME = "x-Q8_0.gguf"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A hub under gunicorn with the sample, and a derived repo of two precisions."""
    settings = Settings(data=tmp_path_factory.mktemp("hub") / "data")
    settings.data.mkdir()
    db.migrate(settings.database)
    files = {path.name: path.read_bytes() for path in SAMPLE.iterdir()}
    header = {"model.safetensors": parse_header(files["model.safetensors"])}
    about = facts({"model_type": "llama"}, header, file_names=files).as_dict()
    publish(settings, "slmhub/sample", files, facts=about, large=["model.safetensors"])
    publish(
        settings,
        "hub/slmhub_sample-GGUF",
        {"README.md": b"# x\n", "x-Q4_K_M.gguf": GGUF, NAME: GGUF * 2},
        kind="derived",
        large=["x-Q4_K_M.gguf", NAME],
        source="slmhub/sample",
        plugin="gguf",
    )
    with gunicorn(settings.data) as (address, _):
        yield address
    db.engine(settings.database).dispose()


@pytest.mark.slow
def test_huggingface_hub_finds_its_way(endpoint: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint, token=False)
    repo = "slmhub/sample"
    info = api.model_info(repo, files_metadata=True)
    assert info.sha
    assert {item.rfilename for item in info.siblings or []} == {p.name for p in SAMPLE.iterdir()}
    [weights] = [item for item in info.siblings or [] if item.lfs]
    assert weights.lfs
    assert (
        weights.lfs.sha256 == hashlib.sha256((SAMPLE / weights.rfilename).read_bytes()).hexdigest()
    )
    assert info.safetensors
    assert api.get_safetensors_metadata(repo).parameter_count == info.safetensors.parameters
    assert {model.id for model in api.list_models(filter="gguf")} == {"hub/slmhub_sample-GGUF"}
    listed = api.list_models(num_parameters="max:100M", full=True)
    assert [model.id for model in listed] == [repo]
    assert {item.path for item in api.list_repo_tree(repo, recursive=True)} == {
        path.name for path in SAMPLE.iterdir()
    }
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "additional_chat_templates"))
    [found] = api.get_paths_info(repo, ["model.safetensors", "nothing"], expand=True)
    assert isinstance(found, RepoFile)
    assert found.lfs
    assert found.last_commit
    assert found.lfs.sha256 == weights.lfs.sha256
    assert found.last_commit.oid == info.sha
    assert [item.name for item in api.list_repo_refs(repo).branches] == ["main"]
    assert [item.commit_id for item in api.list_repo_commits(repo)] == [info.sha]
    for wanted, answer in (
        (True, api.repo_exists(repo)),
        (False, api.repo_exists("slmhub/none")),
        (False, api.repo_exists("gpt2")),
        (True, api.revision_exists(repo, info.sha)),
        (False, api.revision_exists(repo, "v9")),
        (True, api.file_exists(repo, "config.json")),
        (False, api.file_exists(repo, "nothing.json")),
    ):
        assert answer is wanted
    api.auth_check(repo)


@pytest.fixture
def shell(endpoint: str, tmp_path: Path) -> Callable[[str], str]:
    """Run a command as somebody pastes it, in an empty folder, and return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env["HF_HOME"] = str(tmp_path / "home")
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    here = tmp_path / "here"
    here.mkdir()

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], env=env, cwd=here, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_page_of_a_model_tells_how_to_download_it(
    endpoint: str, shell: Callable[[str], str], tmp_path: Path
) -> None:
    page = httpx.get(f"{endpoint}/slmhub/sample", trust_env=False).text
    [command] = re.findall(r"<code>(HF_ENDPOINT=[^<]* hf download [^<]*)</code>", page)
    shell(command)
    [snapshot] = (tmp_path / "home" / "hub").glob("models--slmhub--sample/snapshots/*")
    assert {path.name for path in snapshot.iterdir()} == {path.name for path in SAMPLE.iterdir()}
    shell(f"HF_ENDPOINT={endpoint} hf cache verify slmhub/sample --revision {snapshot.name}")


@pytest.mark.slow
@pytest.mark.parametrize("title", ["curl", "Hugging Face client"])
def test_the_commands_of_an_artefact_put_it_where_they_run(
    title: str, endpoint: str, shell: Callable[[str], str], tmp_path: Path
) -> None:
    if title == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    artefact = Artefact(repo="hub/slmhub_sample-GGUF", variant="Q8_0", files=[{"path": NAME}])
    [command] = [one.text for one in commands(endpoint, None, artefact) if one.title == title]
    shell(command)
    assert (tmp_path / "here" / NAME).read_bytes() == GGUF * 2
