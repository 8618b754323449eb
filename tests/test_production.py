"""The arrangement of compose.yaml with real processes on loopback: nginx, web, two workers,
PostgreSQL, Redis. Only the addresses differ from those of the embedded hub."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from embedded import SLMHUB, environment, slmhub
from fakehub import FakeHub, tiny_model
from postgres import PostgresServer, programs
from redis_server import RedisServer
from servers import free_port, has_nginx, nginx
from workbench import PATIENCE, wait

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

HOST = "127.0.0.2"
"""An address that only this machine reaches, but that the hub does not know as its own."""
TOKEN = "an-admin-token-of-a-test-32-long"


class Production:
    """Addresses of a running hub, and how to talk to it as its operator and as a stranger."""

    def __init__(self, front: str, web: str, env: dict[str, str]) -> None:
        self.env = env | {"HUB_URL": front, "HUB_TOKEN": TOKEN}
        self.web = httpx.Client(base_url=web, trust_env=False, timeout=PATIENCE)
        self.stranger = httpx.Client(base_url=front, trust_env=False, timeout=PATIENCE)
        self.operator = httpx.Client(
            base_url=front,
            trust_env=False,
            timeout=PATIENCE,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )

    def finished(self, answer: httpx.Response) -> dict[str, object]:
        """Wait for the end of the job that an answer is about."""
        assert answer.is_success, answer.text
        address = answer.headers["Location"]
        final = ("done", "failed", "cancelled")
        wait(lambda: self.stranger.get(address).json()["state"] in final)
        job: dict[str, object] = self.stranger.get(address).json()
        assert job["state"] == "done", job
        return job


def postgres(stack: ExitStack) -> str:
    """A server for this module alone: its address."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    server = PostgresServer(folder)
    stack.callback(server.remove)
    server.start()
    stack.callback(server.stop)
    return server.url


def start(stack: ExitStack, env: dict[str, str], log: Path, *command: str) -> psutil.Popen:
    """Run a part of the hub until the end of the module."""

    def end(process: psutil.Popen) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    with log.open("wb") as out:
        process = psutil.Popen([*SLMHUB, *command], env=env, stdout=out, stderr=out)
    children: list[psutil.Process] = []
    stack.callback(end, process)
    stack.callback(lambda: children.extend(process.children(recursive=True)))
    return process


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Everything that compose.yaml starts, in its order, with a mirrored model."""
    if not has_nginx():
        pytest.skip("there is no nginx on this machine")
    folder = tmp_path_factory.mktemp("production")
    data = folder / "data"
    with ExitStack() as stack:
        upstream = stack.enter_context(FakeHub())
        upstream.add("org/model", tiny_model(rows=4096))
        redis = RedisServer()
        redis.start()
        stack.callback(redis.stop)
        port = free_port()
        env = environment(
            data,
            HUB_HOST=HOST,
            HUB_PORT=str(port),
            HUB_DATABASE_URL=postgres(stack),
            HUB_REDIS_URL=redis.url,
            HUB_ADMIN_TOKEN=TOKEN,
            HUB_UPSTREAM=upstream.url,
            HUB_X_ACCEL="/_blobs/",
        )
        for command in (["migrate"], ["plugins", "install", "echo"]):
            done = slmhub(env, *command)
            assert done.returncode == 0, done.stderr
        web = f"http://{HOST}:{port}"
        start(stack, env, folder / "web.log", "serve")
        for number in range(2):
            start(stack, env, folder / f"worker{number}.log", "worker")
        wait(lambda: answers(web), "an answer of the web server")
        front = stack.enter_context(nginx(folder, data / "blobs", web))
        made = Production(front, web, env)
        body = {"repo": "org/model"}
        made.finished(made.operator.post("/api/v1/mirrors", json=body))
        yield made
        for client in (made.web, made.stranger, made.operator):
            client.close()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", trust_env=False, timeout=PATIENCE).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def file(hub: Production) -> dict[str, object]:
    """A file of a finished conversion: its path on the hub, size and digest."""
    body = {"repo": "org/model", "plugin": "echo", "variants": ["plain"], "options": {"write": 3}}
    job = hub.finished(hub.operator.post("/api/v1/conversions", json=body))
    found: dict[str, object] = job["artefacts"][0]["files"][0]  # type: ignore[index]
    return found | {"path": httpx.URL(str(found["url"])).path}


def test_the_catalogue_and_the_health_are_open(hub: Production) -> None:
    assert "org/model" in hub.stranger.get("/").text
    assert hub.stranger.get("/healthz").is_success
    assert hub.stranger.get("/api/v1/models/org/model").json()["id"] == "org/model"


CASES: dict[str, dict[str, str]] = {
    "full": {},
    "range": {"Range": "bytes=100-299"},
    "suffix": {"Range": "bytes=-7"},
    "open": {"Range": "bytes=3000000-"},
    "beyond": {"Range": "bytes=999999999-"},
    "known": {"If-None-Match": "ETAG"},
    "same": {"If-Range": "ETAG", "Range": "bytes=0-9"},
    "other": {"If-Range": '"0"', "Range": "bytes=0-9"},
}
STATUS = {"full": 200, "range": 206, "suffix": 206, "open": 206, "beyond": 416, "known": 304}
STATUS |= {"same": 206, "other": 200}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", CASES)
def test_a_download_through_nginx_is_that_of_the_hub(
    hub: Production, file: dict[str, object], embedded: httpx.Client, case: str, method: str
) -> None:
    path = str(file["path"])
    asked = {
        name: value.replace("ETAG", f'"{file["sha256"]}"') for name, value in CASES[case].items()
    }
    behind, alone = (
        client.request(method, path, headers=asked) for client in (hub.stranger, embedded)
    )
    # A range is a matter of GET: HEAD tells of the whole file (RFC 9110, 14.2).
    expected = STATUS[case] if method == "GET" or case == "known" else 200
    assert behind.status_code == alone.status_code == expected
    if method == "GET" and behind.status_code < 300:
        assert behind.content == alone.content
    if case == "full":
        assert behind.headers["Content-Length"] == str(file["size"])
        assert behind.headers["ETag"] == f'"{file["sha256"]}"'
        assert behind.headers["X-Repo-Commit"]
    own = {"server", "date", "connection", "keep-alive", "x-request-id", "transfer-encoding"}
    if behind.status_code == 416:
        own |= {"content-length", "content-type"}  # of the page, which is the server's own
    seen = [
        {name: value for name, value in one.headers.items() if name not in own}
        for one in (behind, alone)
    ]
    assert seen[0] == seen[1]


@pytest.fixture(scope="module")
def embedded(hub: Production, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A second web server on the same data, which sends the bytes itself."""
    with ExitStack() as stack:
        port = free_port()
        env = {name: value for name, value in hub.env.items() if name != "HUB_X_ACCEL"}
        env |= {"HUB_PORT": str(port)}
        start(stack, env, tmp_path_factory.mktemp("alone") / "log", "serve")
        address = f"http://{HOST}:{port}"
        wait(lambda: answers(address), "an answer")
        client = stack.enter_context(
            httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE)
        )
        yield client


def test_nginx_sends_the_bytes(hub: Production, file: dict[str, object]) -> None:
    told = hub.web.get(str(file["path"]))
    assert told.headers["X-Accel-Redirect"].startswith("/_blobs/sha256/")
    assert told.content == b""
    inside = hub.stranger.get(told.headers["X-Accel-Redirect"])
    assert inside.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/mirrors", {"repo": "org/other"}),
        ("POST", "/api/v1/conversions", {"repo": "o/m", "plugin": "echo", "variants": ["plain"]}),
        ("DELETE", "/api/v1/jobs/1", None),
    ],
)
def test_a_write_needs_a_token(
    hub: Production, method: str, path: str, body: dict[str, object] | None
) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = hub.stranger.request(method, path, json=body, headers=headers)
        assert answer.status_code == 401
        problem = answer.json()
        assert problem["kind"] == "token_needed"
        assert "Bearer" in problem["hint"]
    # A token that may only read is told what it lacks.
    made = slmhub(hub.env, "token", "create", "reader", "--scope", "read")
    reader = {"Authorization": f"Bearer {made.stdout.strip()}"}
    answer = hub.stranger.request(method, path, json=body, headers=reader)
    assert answer.status_code == 403
    assert "scope write" in answer.json()["hint"]


def test_a_folder_of_the_machine_is_no_one_elses(hub: Production, tmp_path: Path) -> None:
    body = {"repo": "org/other", "folder": str(tmp_path)}
    answer = hub.operator.post("/api/v1/mirrors", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (403, "folder_not_allowed")


def test_unknown_hosts_are_refused(hub: Production) -> None:
    answer = hub.stranger.get("/", headers={"Host": "rebound.example"})
    assert answer.status_code == 421
    # A container's own check of its health names no host that the operator thought of.
    assert hub.stranger.get("/healthz", headers={"Host": "web:8080"}).is_success


def test_the_command_line_works_from_elsewhere(hub: Production) -> None:
    done = slmhub(hub.env, "convert", "org/model", "echo", "loud", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert '"state": "done"' in done.stdout
    without = {name: value for name, value in hub.env.items() if name != "HUB_TOKEN"}
    without["HUB_ADMIN_TOKEN"] = ""
    done = slmhub(without, "jobs", "cancel", "1")
    assert done.returncode == 1
    assert "needs a token" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


@contextmanager
def both_at_work(hub: Production) -> Iterator[None]:
    """While the slots of both workers, one each, are taken."""
    jobs = []
    try:
        for seconds in (600, 601):
            body = {"repo": "org/model", "plugin": "echo", "variants": ["loud"]}
            body |= {"options": {"sleep": seconds}}
            answer = hub.operator.post("/api/v1/conversions", json=body)
            assert answer.is_success, answer.text
            jobs.append(answer.headers["Location"])
        wait(lambda: states(hub, jobs) == {"running"}, "two jobs that run at the same time")
        yield
    finally:
        for job in jobs:
            hub.operator.delete(job)
        wait(lambda: states(hub, jobs) <= {"cancelled"}, "the end of cancelled jobs")


def states(hub: Production, jobs: list[str]) -> set[str]:
    return {hub.stranger.get(job).json()["state"] for job in jobs}


def test_two_workers_share_the_jobs(hub: Production) -> None:
    with both_at_work(hub):
        pass


def test_events_come_through_nginx_as_they_happen(hub: Production) -> None:
    body = {"repo": "org/model", "plugin": "echo", "variants": ["plain"], "options": {"sleep": 1}}
    told = []
    # Of a job that waits there is nothing to tell but that: had nginx kept it back until it has
    # more, or the stream ends, it would never come, and nobody would cancel the job.
    with both_at_work(hub):
        job = hub.operator.post("/api/v1/conversions", json=body).headers["Location"]
        with hub.stranger.stream("GET", f"{job}/events") as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: "))["state"])
                    assert hub.operator.delete(job).is_success
    assert told == ["queued", "cancelled"]


def test_the_rows_are_in_postgresql(hub: Production) -> None:
    with psycopg.connect(hub.env["HUB_DATABASE_URL"]) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM repo")}
    assert names == {"org/model", "hub/org_model-Echo"}
    assert not list(Path(hub.env["HUB_DATA"]).glob("*.sqlite"))
