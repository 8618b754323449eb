"""The pages as their visitors get them, without a browser."""

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from flask.testing import FlaskClient
from furnished import add_artefact, add_job, add_log, add_model, add_plugin
from hostile import PAYLOADS
from published import publish
from pydantic import SecretStr

from hub import db, jobs, queue
from hub.app import create_app
from hub.asking import Appraisal
from hub.blobs import BlobStore
from hub.config import Settings
from hub.models import JobState
from hub.views.verdicts import Verdicts


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setattr(queue, "ring", lambda *_: None)
    with create_app(settings).test_client() as client:
        yield client


def text(client: FlaskClient, address: str, status: int = 200) -> str:
    response = client.get(address)
    assert response.status_code == status, response.text
    return response.text


def words(page: str) -> str:
    """What a reader sees of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_an_empty_catalogue_says_what_to_do(client: FlaskClient) -> None:
    page = text(client, "/")
    assert "No model is mirrored yet" in page
    assert 'name="repo" value="Qwen/Qwen3-0.6B"' in page
    assert "Nothing is converted yet" in text(client, "/?kind=derived")


def test_the_catalogue_lists_counts_and_filters(client: FlaskClient, settings: Settings) -> None:
    sha = add_model(settings)
    add_model(settings, "org/big", tier="medium", parameters=20_000_000_000, license="mit")
    add_artefact(settings, sha)
    page = text(client, "/")
    assert 'href="/org/model"' in page
    assert 'href="/org/big"' in page
    assert re.search(r"toy\s+1|Toy 1", words(page))
    only = text(client, "/?tier=medium")
    assert 'href="/org/model"' not in only
    assert 'href="/org/big"' in only
    assert 'href="/org/big"' not in text(client, "/?license=apache-2.0")
    assert 'href="/org/big"' in text(client, "/?q=BIG+org")
    assert "Nothing matches" in text(client, "/?q=zzz")
    assert 'href="/hub/org_model-TOY"' in text(client, "/?kind=derived")


def test_the_catalogue_pages_without_losing_a_model(
    client: FlaskClient, settings: Settings
) -> None:
    for number in range(65):
        add_model(settings, f"org/model-{number}")
    seen: list[str] = []
    address: str | None = "/?sort=name"
    while address:
        page = text(client, address)
        seen += re.findall(r'class="name"><a href="/(org/model-\d+)"', page)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        address = html.unescape(following[1]) if following else None
    assert len(seen) == len(set(seen)) == 65


@pytest.mark.parametrize("query", ["tier=huge", "kind=x", "sort=x", "cursor=%00", "cursor=abc"])
def test_a_search_that_cannot_be_is_refused(client: FlaskClient, query: str) -> None:
    page = text(client, f"/?{query}", 400)
    assert 'class="hint"' in page


def test_what_is_mirrored_is_no_longer_offered(client: FlaskClient, settings: Settings) -> None:
    add_model(settings, "Qwen/Qwen3-0.6B")
    assert 'value="Qwen/Qwen3-0.6B"' not in text(client, "/")


def test_a_mirror_is_asked_for_with_a_form(client: FlaskClient, settings: Settings) -> None:
    response = client.post("/mirrors", data={"repo": " org/name@v1 "})
    assert response.status_code == 303
    with db.reading(settings.database) as session:
        job = jobs.get(session, int(response.location.rsplit("/", 1)[1]))
    assert (job.kind, job.repo, job.revision) == ("mirror", "org/name", "v1")
    assert "org/name" in text(client, "/")
    assert client.post("/mirrors", data={"repo": "../etc"}).status_code == 400


def test_a_model_page_shows_facts_card_files_and_formats(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    add_artefact(settings, sha)
    page = text(client, "/org/model")
    seen = words(page)
    for expected in ("596,049,920", "40,960 tokens", "apache-2.0", "Qwen3ForCausalLM", "en, de"):
        assert expected in seen
    assert "A <em>small</em> model." in page
    assert "license: apache" not in seen
    assert '/org/model/resolve/main/model.safetensors"' in page
    assert 'value="toy:q4"' in page
    assert 'id="pick-toy:q8"' not in page, "what is there need not be asked for"
    assert 'href="/hub/org_model-TOY/resolve/main/org_model-q8.toy"' in page
    assert "toy --hub http://127.0.0.1:8080 hub/org_model-TOY org_model-q8.toy" in seen
    assert "335\u00a0MB" in page, "the estimate of q4: parameters times bits by eight"
    assert 'type="number" name="option:toy:ratio" id="option:toy:ratio" value="0.5"' in page


def test_a_model_page_of_a_plugin_that_is_not_installed(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings, ready=False)
    add_model(settings)
    page = text(client, "/org/model")
    assert "slmhub plugins install toy" in page
    assert 'value="toy:q4"' not in page


def test_a_model_that_a_plugin_cannot_convert(
    client: FlaskClient,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def refuse(*given: object) -> Appraisal:
        asked.append(given)
        return Appraisal("The architecture <x> is not known.")

    monkeypatch.setattr("hub.asking.appraise", refuse)
    monkeypatch.setattr("hub.views.model.verdicts", Verdicts())
    add_plugin(tmp_path / "plugins", settings)
    add_model(settings)
    for _ in range(2):
        page = text(client, "/org/model")
        assert "The architecture &lt;x&gt; is not known." in page
        assert 'value="toy:q4"' not in page
    assert len(asked) == 1


def test_running_and_failed_jobs_are_in_their_cells(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    running = add_job(settings, commit=sha, state=JobState.RUNNING, progress=0.42)
    failed = add_job(
        settings, commit=sha, state=JobState.FAILED, request={"variants": ["q8"], "options": {}}
    )
    page = text(client, "/org/model")
    assert f"42 %, job {running.id}" in page
    assert 'id="pick-toy:q4"' not in page
    assert f'href="/jobs/{failed.id}">failed, why?' in page
    assert 'id="pick-toy:q8"' in page


def test_several_variants_with_options_are_one_job(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    form = {
        "revision": sha,
        "variant": ["toy:q4", "toy:q8"],
        "option:toy:group_size": "32",
        "option:toy:careful": ["false", "true"],
        "option:toy:ratio": "",
    }
    response = client.post("/org/model/convert", data=form)
    assert response.status_code == 303, response.text
    with db.reading(settings.database) as session:
        job = jobs.get(session, int(response.location.rsplit("/", 1)[1]))
    assert job.request["variants"] == ["q4", "q8"]
    assert job.request["options"] == {"group_size": 32, "careful": True, "ratio": 0.5}
    assert job.commit == sha


def test_the_button_of_a_variant_asks_for_it_alone(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    add_model(settings)
    response = client.post("/org/model/convert", data={"only": "toy:q4", "variant": "toy:q8"})
    with db.reading(settings.database) as session:
        job = jobs.get(session, int(response.location.rsplit("/", 1)[1]))
    assert job.request["variants"] == ["q4"]


def test_a_derived_repo_tells_where_it_comes_from(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    add_artefact(settings, sha)
    seen = words(text(client, "/hub/org_model-TOY"))
    for expected in ("org/model", sha, "toy-tools 4.5", "once upon a time", "ab" * 32, "strict"):
        assert expected in seen


def test_what_was_not_run_here_is_not_called_passed(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    job = add_job(settings, commit=sha, state=JobState.DONE, request={"keys": {"q8": "k" * 64}})
    add_artefact(settings, sha, check_result={"ran": False, "note": "It needs <a> GPU."})
    for address in ("/org/model", "/hub/org_model-TOY", f"/jobs/{job.id}"):
        page = text(client, address)
        assert "not run here" in page, address
        assert "It needs &lt;a&gt; GPU." in page, address
        assert "loads and generates" not in page, address


MANY = """
[[variants]]
name = "v{0}"
bits = {1}
class = "{2}"
note = "Number {0}"
pick = {3}
"""


def test_many_variants_are_folded_but_what_matters_is_seen(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    fmt = add_plugin(tmp_path / "plugins", settings)
    manifest = (fmt.folder / "plugin.toml").read_text()
    more = "".join(
        MANY.format(number, 3 + number / 100, "low", str(number in (3, 5)).lower())
        for number in range(27)
    )
    (fmt.folder / "plugin.toml").write_text(
        manifest.replace("[options.group_size]", more + "[options.group_size]", 1)
    )
    sha = add_model(settings)
    add_artefact(settings, sha, variant="v9")
    add_job(settings, commit=sha, state=JobState.FAILED, request={"variants": ["v11"]})
    page = text(client, "/org/model")
    first, folded = page.split('id="more-toy"')
    shown = re.findall(r'<label for="pick-toy:(\w+)"', first)
    # The best of a class without a pick, the picks, and what is there or was tried.
    assert shown == ["full", "q8", "v3", "v5", "v9", "v11"]
    assert len(re.findall(r'<label for="pick-toy:', folded)) == 24
    assert "24 more variants" in words(page)
    ticked = client.post("/org/model/convert", data={"variant": "toy:v20", "show": "page"}).text
    assert re.search(r'id="more-toy" open', ticked), "what is ticked is not hidden"


def test_who_is_not_signed_in_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = settings.model_copy(update={"host": "0.0.0.0", "admin_token": SecretStr("t" * 32)})
    add_plugin(tmp_path / "plugins", shared)
    add_model(shared)
    with create_app(shared).test_client() as client:
        page = text(client, "/org/model")
        assert 'href="/login?next=/org/model"' in page
        assert "data-request" not in page
        assert client.post("/org/model/convert", data={"show": "part"}).status_code == 401
        client.post("/login", data={"token": "t" * 32})
        assert "data-request" in text(client, "/org/model")


def test_files_have_a_page(client: FlaskClient, settings: Settings) -> None:
    add_model(settings)
    assert "model_type" in text(client, "/org/model/blob/main/config.json")
    assert '<h3 id="card-more">More</h3>' in text(client, "/org/model/blob/main/docs/more.md")
    assert "No preview" in text(client, "/org/model/blob/main/model.safetensors")
    text(client, "/org/model/blob/main/none.json", 404)


def test_a_page_is_there_though_a_blob_is_gone(client: FlaskClient, settings: Settings) -> None:
    add_model(settings)
    store = BlobStore(settings.blobs)
    for digest in list(store.iter()):
        store.remove(digest)
    assert "model.safetensors" in text(client, "/org/model")
    assert "No preview" in text(client, "/org/model/blob/main/config.json")


@pytest.mark.parametrize("config", [b"[" * 100_000, b"not json", b"[1]", b"\xff\xfe"])
def test_a_config_that_is_none_harms_no_page(
    client: FlaskClient, settings: Settings, tmp_path: Path, config: bytes
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    publish(settings, "org/model", {"config.json": config})
    text(client, "/org/model")


@pytest.mark.parametrize(
    "address",
    ["/nobody/nothing", "/org/model?revision=v9", "/jobs/99", "/org/..%2f..%2fx", "/api/nothing"],
)
def test_what_is_not_there(client: FlaskClient, settings: Settings, address: str) -> None:
    add_model(settings)
    assert client.get(address).status_code in (400, 404)


@pytest.mark.parametrize(
    "address",
    ["/?q=a%00b", "/?license=%00", f"/?q={'x' * 1025}", "/jobs?repo=a%00b", "/jobs?repo=no-name"],
)
def test_what_no_database_takes_is_refused(client: FlaskClient, address: str) -> None:
    text(client, address, 400)


def test_jobs_say_where_they_stand(client: FlaskClient, settings: Settings) -> None:
    assert "No job yet" in words(text(client, "/jobs"))
    waiting = [add_job(settings) for _ in range(2)]
    page = words(text(client, "/jobs"))
    assert "next in the queue" in page
    assert "number 2 in the queue" in page
    assert f'data-job="{waiting[0].id}"' in text(client, f"/jobs/{waiting[0].id}")
    assert "No job is failed" in words(text(client, "/jobs?state=failed"))
    text(client, "/jobs?state=odd", 400)
    add_job(settings, repo="org/other")
    assert "All 3" in words(text(client, "/jobs"))
    assert "All 1" in words(text(client, "/jobs?repo=org/other"))


def test_jobs_are_paged(client: FlaskClient, settings: Settings) -> None:
    for _ in range(45):
        add_job(settings, state=JobState.DONE)
    page = text(client, "/jobs")
    following = re.search(r'href="([^"]+)" rel="next"', page)
    assert following
    assert "First page" in text(client, html.unescape(following[1]))


def test_a_job_is_cancelled_and_asked_for_again(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    job = add_job(
        settings,
        kind="mirror",
        plugin=None,
        request={},
        request_key="m",
    )
    assert client.post(f"/jobs/{job.id}/again").status_code == 409
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 303
    assert "cancelled" in text(client, f"/jobs/{job.id}")
    again = client.post(f"/jobs/{job.id}/again")
    assert again.status_code == 303
    assert again.location != f"/jobs/{job.id}"


def test_a_failed_job_names_cause_and_next_step(client: FlaskClient, settings: Settings) -> None:
    job = add_job(
        settings,
        state=JobState.FAILED,
        error_kind="out_of_memory",
        error_message="It used 9 GB & <more>.",
        error_hint="Take a smaller variant.",
    )
    add_log(settings, job, "first line\n" + "x" * 70_000 + "\nlast <b>line</b>\n")
    page = text(client, f"/jobs/{job.id}")
    for expected in (
        "It used 9 GB &amp; &lt;more&gt;.",
        "Take a smaller variant.",
        "out_of_memory",
        "last &lt;b&gt;line&lt;/b&gt;",
    ):
        assert expected in page
    assert "first line" not in page, "the page carries the end of the log"
    assert "data-job" not in page
    assert 'http-equiv="refresh"' not in page


def test_a_page_of_a_running_job_renews_itself_without_scripts(
    client: FlaskClient, settings: Settings
) -> None:
    job = add_job(settings, state=JobState.RUNNING)
    page = text(client, f"/jobs/{job.id}")
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page


def test_plugins_are_listed_with_what_to_do(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings, ready=False)
    broken = tmp_path / "plugins" / "broken"
    broken.mkdir()
    (broken / "plugin.toml").write_text("api = 0")
    seen = words(text(client, "/plugins"))
    for expected in ("slmhub plugins install toy", "Runs on toys", "api: 0", "toy-tools", "MIT"):
        assert expected in seen


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    add_artefact(settings, sha)
    job = add_job(settings, state=JobState.RUNNING, commit=sha)
    for address in (
        "/",
        "/org/model",
        "/hub/org_model-TOY",
        "/jobs",
        f"/jobs/{job.id}",
        "/plugins",
    ):
        page = text(client, address)
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page), address
        for source in re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]*)"', page):
            assert source.startswith("/static/"), (address, source)


class Inspector(HTMLParser):
    """Notes what runs in a page, or would if someone clicked on it."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("svg", "style", "iframe", "object", "embed", "base") and (
            tag != "svg" or "aria-hidden" not in values
        ):
            self.bad.append(tag)
        if tag == "script" and values.get("src") != "/static/hub.js":
            self.bad.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "formaction"):
                self.bad.append(f"{tag} {name}")
            scheme = urlsplit(value or "").scheme if name in ("href", "src", "action") else ""
            if scheme not in ("", "http", "https", "mailto"):
                self.bad.append(f"{tag} {name}={value}")


def test_hostile_rows_are_escaped_everywhere(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    add_plugin(tmp_path / "plugins", settings)
    addresses = ["/?sort=name", "/jobs"]
    for number in range(0, len(PAYLOADS), 20):
        name, some = f"org/model-{number}", PAYLOADS[number : number + 20]
        everything = "\n\n".join(some).replace("\0", "")
        sha = add_model(
            settings,
            name,
            card="\n\n".join(some),
            license=everything,
            architecture=everything,
            pipeline_tag=everything,
            languages=list(some),
            dtype=everything,
        )
        request = {"variants": list(some), "options": {everything: everything}}
        job = add_job(
            settings,
            repo=name,
            commit=sha,
            state=JobState.FAILED,
            message=everything,
            error_kind=everything,
            error_message=everything,
            error_hint=everything,
            request=request,
        )
        add_log(settings, job, everything)
        addresses += [f"/{name}", f"/jobs/{job.id}", f"/?q={quote(some[0])}"]
    for address in addresses:
        inspector = Inspector()
        inspector.feed(text(client, address))
        inspector.close()
        assert inspector.bad == [], address


def test_the_login_page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = settings.model_copy(update={"host": "0.0.0.0", "admin_token": SecretStr("t" * 32)})
    with create_app(shared).test_client() as client:
        page = text(client, "/login?next=/jobs")
        assert 'name="next" value="/jobs"' in page
        assert 'href="/login?next=/"' in text(client, "/")
