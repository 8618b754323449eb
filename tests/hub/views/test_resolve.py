"""Downloads, through the test client and through the real servers: the same answers everywhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gunicorn.http.wsgi import FileWrapper
from published import publish
from servers import gunicorn, has_nginx, nginx
from werkzeug.test import EnvironBuilder

from hub import db
from hub.app import create_app
from hub.blobs import BlobStore
from hub.config import Settings
from hub.models import Blob

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
MODEL = "/org/model/resolve/main/weights/model.safetensors"


@dataclass(frozen=True)
class Hub:
    """A hub that serves, the commit of its model and the digest of its file."""

    settings: Settings
    commit: str
    sha256: str


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    settings = Settings(data=tmp_path_factory.mktemp("hub") / "data")
    settings.data.mkdir()
    db.migrate(settings.database)
    files = {
        "weights/model.safetensors": CONTENT,
        "README.md": b"# A model\n",
        "page.html": b"<script>alert(1)</script>",
        "empty.bin": b"",
        'näme "x".bin': b"x",
    }
    commit = publish(settings, "org/model", files, ref="release/1.0")
    yield Hub(settings, commit, BlobStore(settings.blobs).add_bytes(CONTENT).sha256)
    db.engine(settings.database).dispose()


@pytest.fixture(scope="module")
def alone(hub: Hub) -> Iterator[httpx.Client]:
    """The hub under gunicorn."""
    with (
        gunicorn(hub.settings.data) as (address, _),
        httpx.Client(base_url=address, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def behind(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The hub under gunicorn behind nginx, which sends the bytes."""
    if not has_nginx():
        pytest.skip("there is no nginx on this machine")
    folder = tmp_path_factory.mktemp("nginx")
    with (
        gunicorn(hub.settings.data, HUB_X_ACCEL="/_blobs/") as (upstream, _),
        nginx(folder, hub.settings.blobs, upstream) as address,
        httpx.Client(base_url=address, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def inside(hub: Hub) -> Iterator[httpx.Client]:
    """The application itself, without a server."""
    with httpx.Client(
        transport=httpx.WSGITransport(create_app(hub.settings)), base_url="http://localhost"
    ) as client:
        yield client


def _etag(hub: Hub) -> str:
    return f'"{hub.sha256}"'


Case = tuple[str, Callable[[Hub], dict[str, str]], int, bytes]
CASES: dict[str, Case] = {
    "whole": ("GET", lambda _: {}, 200, CONTENT),
    "head": ("HEAD", lambda _: {}, 200, b""),
    "compression is asked for": ("GET", lambda _: {"Accept-Encoding": "gzip, br"}, 200, CONTENT),
    "first byte": ("GET", lambda _: {"Range": "bytes=0-0"}, 206, CONTENT[:1]),
    "single": ("GET", lambda _: {"Range": "bytes=100-299"}, 206, CONTENT[100:300]),
    "open": ("GET", lambda _: {"Range": "bytes=10000-"}, 206, CONTENT[10000:]),
    "suffix": ("GET", lambda _: {"Range": "bytes=-7"}, 206, CONTENT[-7:]),
    "suffix of more": ("GET", lambda _: {"Range": "bytes=-99999"}, 206, CONTENT),
    "to beyond the end": ("GET", lambda _: {"Range": "bytes=10239-99999"}, 206, CONTENT[-1:]),
    "all of it": ("GET", lambda _: {"Range": "bytes=0-"}, 206, CONTENT),
    "several": ("GET", lambda _: {"Range": "bytes=0-1,4-5"}, 200, CONTENT),
    "several, one possible": (
        "GET",
        lambda _: {"Range": "bytes=0-1,99999-"},
        206,
        CONTENT[:2],
    ),
    "another unit": ("GET", lambda _: {"Range": "pages=1-2"}, 200, CONTENT),
    "beyond the end": ("GET", lambda _: {"Range": f"bytes={SIZE}-"}, 416, b""),
    "nothing": ("GET", lambda _: {"Range": "bytes=-0"}, 416, b""),
    "backwards": ("GET", lambda _: {"Range": "bytes=5-2"}, 416, b""),
    "no range": ("GET", lambda _: {"Range": "bytes=a-b"}, 416, b""),
    "head ignores ranges": ("HEAD", lambda _: {"Range": "bytes=0-0"}, 200, b""),
    "head ignores bad ranges": ("HEAD", lambda _: {"Range": "bytes=99999-"}, 200, b""),
    "known": ("GET", lambda h: {"If-None-Match": _etag(h)}, 304, b""),
    "known, head": ("HEAD", lambda h: {"If-None-Match": _etag(h)}, 304, b""),
    "known, weakly": ("GET", lambda h: {"If-None-Match": f"W/{_etag(h)}"}, 304, b""),
    "known among others": ("GET", lambda h: {"If-None-Match": f'"a", {_etag(h)}'}, 304, b""),
    "any": ("GET", lambda _: {"If-None-Match": "*"}, 304, b""),
    "known before a range": (
        "GET",
        lambda h: {"If-None-Match": _etag(h), "Range": "bytes=0-0"},
        304,
        b"",
    ),
    "not known": ("GET", lambda _: {"If-None-Match": '"other"'}, 200, CONTENT),
    "not known, range": (
        "GET",
        lambda _: {"If-None-Match": '"other"', "Range": "bytes=1-2"},
        206,
        CONTENT[1:3],
    ),
    "unchanged since": (
        "GET",
        lambda _: {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
        200,
        CONTENT,
    ),
    "if range": (
        "GET",
        lambda h: {"If-Range": _etag(h), "Range": "bytes=1-2"},
        206,
        CONTENT[1:3],
    ),
    "if range, weak": (
        "GET",
        lambda h: {"If-Range": f"W/{_etag(h)}", "Range": "bytes=1-2"},
        200,
        CONTENT,
    ),
    "if range, another": (
        "GET",
        lambda _: {"If-Range": '"other"', "Range": "bytes=1-2"},
        200,
        CONTENT,
    ),
    "if range, another, beyond the end": (
        "GET",
        lambda _: {"If-Range": '"other"', "Range": "bytes=99999-"},
        200,
        CONTENT,
    ),
    "if range, a date": (
        "GET",
        lambda _: {"If-Range": "Fri, 01 Jan 2100 00:00:00 GMT", "Range": "bytes=1-2"},
        200,
        CONTENT,
    ),
    "if match": ("GET", lambda h: {"If-Match": _etag(h)}, 200, CONTENT),
    "if match, range": (
        "GET",
        lambda h: {"If-Match": _etag(h), "Range": "bytes=1-2"},
        206,
        CONTENT[1:3],
    ),
    "if match, another": ("GET", lambda _: {"If-Match": '"other"'}, 412, b""),
    "not if modified": (
        "GET",
        lambda _: {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        200,
        CONTENT,
    ),
}


@pytest.mark.parametrize(
    "server",
    [
        "inside",
        pytest.param("alone", marks=pytest.mark.slow),
        pytest.param("behind", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_every_way_to_ask(case: str, server: str, hub: Hub, request: pytest.FixtureRequest) -> None:
    client: httpx.Client = request.getfixturevalue(server)
    method, headers, status, body = CASES[case]
    # Not decoded: what was sent is what is compared.
    with client.stream(method, MODEL, headers=headers(hub)) as answer:
        content = b"".join(answer.iter_raw())
    assert answer.status_code == status
    if status in (200, 206):
        assert content == body
        expected = SIZE if method == "HEAD" else len(body)
        assert answer.headers["Content-Length"] == str(expected)
    if status == 206:
        start = CONTENT.index(body) if body != CONTENT else 0
        found = answer.headers["Content-Range"]
        assert found.startswith("bytes ")
        assert found.endswith(f"/{SIZE}")
        first, last = found.removeprefix("bytes ").partition("/")[0].split("-")
        assert CONTENT[int(first) : int(last) + 1] == body
        assert start <= int(first)
    if status == 416:
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["ETag"] == _etag(hub)
    assert answer.headers["X-Repo-Commit"] == hub.commit
    assert "Content-Encoding" not in answer.headers


# What a server says of itself and of the connection, and what differs from request to request.
_OWN = {"server", "date", "connection", "keep-alive", "x-request-id", "transfer-encoding"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_headers_are_the_same_with_and_without_nginx(
    case: str, hub: Hub, alone: httpx.Client, behind: httpx.Client
) -> None:
    method, headers, _, _ = CASES[case]
    said = [
        {
            (name, value)
            for name, value in client.request(method, MODEL, headers=headers(hub)).headers.items()
            if name not in _OWN
        }
        for client in (alone, behind)
    ]
    assert said[0] == said[1]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["empty.bin", "README.md", "page.html", 'näme "x".bin'])
@pytest.mark.parametrize("requested", [None, "bytes=0-", "bytes=-5", "bytes=1-"])
def test_other_files_are_the_same_with_and_without_nginx(
    path: str, requested: str | None, alone: httpx.Client, behind: httpx.Client
) -> None:
    headers = {"Range": requested} if requested else {}
    one, other = (
        client.get(f"/org/model/resolve/main/{path}", headers=headers) for client in (alone, behind)
    )
    assert one.status_code == other.status_code
    assert one.content == other.content
    assert {item for item in one.headers.items() if item[0] not in _OWN} == {
        item for item in other.headers.items() if item[0] not in _OWN
    }


def test_clients_find_what_they_look_for(inside: httpx.Client, hub: Hub) -> None:
    headers = inside.head(MODEL).headers
    assert headers["X-Linked-Etag"] == f'"{hub.sha256}"'
    assert headers["X-Linked-Size"] == str(SIZE)
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Disposition"] == (
        "attachment; filename*=UTF-8''model.safetensors; filename=\"model.safetensors\""
    )
    assert headers["Access-Control-Allow-Origin"] == "*"
    for name in ("X-Repo-Commit", "ETag", "X-Linked-Size", "Content-Range", "X-Error-Code"):
        assert name in headers["Access-Control-Expose-Headers"]


def test_no_file_acts_on_the_hubs_origin(inside: httpx.Client) -> None:
    answer = inside.get("/org/model/resolve/main/page.html")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_other_sites_may_ask_first(inside: httpx.Client) -> None:
    answer = inside.options(MODEL, headers={"Origin": "https://example.org"})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Range" in answer.headers["Access-Control-Allow-Headers"]
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "revision", ["main", "refs%2Fheads%2Fmain", "release%2F1.0", "refs%2Ftags%2Frelease%2F1.0"]
)
def test_revisions_with_slashes_come_quoted(
    revision: str, inside: httpx.Client, alone: httpx.Client, behind: httpx.Client, hub: Hub
) -> None:
    for client in (inside, alone, behind):
        if client is inside and revision != "main":
            continue  # this transport does not hand the request line on
        answer = client.head(f"/org/model/resolve/{revision}/README.md")
        assert answer.status_code == 200
        assert answer.headers["X-Repo-Commit"] == hub.commit


def test_a_commit_is_cached_for_ever_and_main_never(inside: httpx.Client, hub: Hub) -> None:
    pinned = inside.head(MODEL.replace("main", hub.commit)).headers["Cache-Control"]
    assert "immutable" in pinned
    short = inside.head(MODEL.replace("main", hub.commit[:10])).headers["Cache-Control"]
    assert short == inside.head(MODEL).headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/org/other/resolve/main/x", 404, "RepoNotFound"),
        ("/gpt2/resolve/main/config.json", 404, "RepoNotFound"),
        ("/org/model/resolve/v9/x", 404, "RevisionNotFound"),
        ("/org/model/resolve/main/nothing.bin", 404, "EntryNotFound"),
        ("/org/model/resolve/main/weights", 404, "EntryNotFound"),
        ("/org/model/resolve/main/..%2f..%2fetc%2fpasswd", 400, "BadPath"),
        ("/org/mod--el/resolve/main/x", 400, "BadRepoName"),
    ],
)
def test_what_is_not_there_says_so_as_clients_expect(
    path: str, status: int, code: str, inside: httpx.Client, hub: Hub
) -> None:
    for method in ("GET", "HEAD"):
        answer = inside.request(method, path)
        assert answer.status_code == status
        assert answer.headers["X-Error-Code"] == code
        assert answer.headers["X-Error-Message"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        expected = hub.commit if code == "EntryNotFound" else None
        assert answer.headers.get("X-Repo-Commit") == expected


@pytest.mark.parametrize(("requested", "start"), [(None, 0), ("bytes=300-", 300)])
def test_the_server_gets_a_file_that_it_can_send_without_reading(
    requested: str | None, start: int, hub: Hub
) -> None:
    headers = {"Range": requested} if requested else {}
    environ = EnvironBuilder(MODEL, headers=headers).get_environ()
    environ["wsgi.file_wrapper"] = FileWrapper
    body = create_app(hub.settings)(environ, lambda *_: lambda _: None)
    # What gunicorn asks before it calls sendfile, which begins where the file stands.
    assert isinstance(body, FileWrapper)
    assert body.filelike.fileno()
    assert body.filelike.tell() == start
    body.close()
    assert body.filelike.closed


def test_damaged_bytes_are_not_sent(settings: Settings) -> None:
    publish(settings, "org/model", {"a.bin": b"aaa", "b.bin": b"bbb"})
    store = BlobStore(settings.blobs)
    damaged, lost = store.add_bytes(b"aaa").sha256, store.add_bytes(b"bbb").sha256
    with db.writing(settings.database) as session:
        blob = session.get(Blob, damaged)
        assert blob
        blob.quarantined = True
    store.path(lost).unlink()
    client = create_app(settings).test_client()
    for name in ("a.bin", "b.bin"):
        for method in ("GET", "HEAD"):
            answer = client.open(f"/org/model/resolve/main/{name}", method=method)
            assert answer.status_code == 503
            assert answer.headers["X-Error-Code"] == "FileDamaged"


@pytest.mark.slow
def test_huggingface_hub_downloads(
    alone: httpx.Client, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    endpoint = str(alone.base_url).rstrip("/")
    got = hf_hub_download(
        "org/model", "weights/model.safetensors", endpoint=endpoint, cache_dir=tmp_path
    )
    assert Path(got).read_bytes() == CONTENT
    assert hub.commit in got
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("org/model", "nothing", endpoint=endpoint, cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("org/other", "config.json", endpoint=endpoint, cache_dir=tmp_path)
    assert HfApi(endpoint=endpoint).file_exists("org/model", "README.md")
    assert not HfApi(endpoint=endpoint).file_exists("org/model", "nothing")
