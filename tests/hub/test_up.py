"""`slmhub up`: it starts, keeps running, ends whole, and says in one sentence why it does not."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from embedded import UP, Embedded, environment, slmhub, using
from workbench import PATIENCE, wait

from hub import artefacts, db, formats
from hub.config import Settings
from hub.models import Job
from hub.up import Child

pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Embedded]:
    made = Embedded(tmp_path)
    yield made
    made.clean()


@pytest.fixture
def converting(hub: Embedded) -> dict[str, object]:
    """A running hub in the middle of a conversion, which would be longer than any test waits.

    What is lost is missed after fifteen seconds: a machine that stands still for some loses none.
    """
    hub.env |= {"HUB_LEASE": "15", "HUB_RECONCILE": "1", "HUB_HEARTBEAT": "1"}
    assert hub.command("plugins", "install", "echo").returncode == 0
    hub.up()
    hub.mirror()
    job = hub.convert("plain", sleep=600)
    hub.sleeping(job)
    return job


def words(process: psutil.Process) -> set[str]:
    """The words of a command line without their folders; none of a process that ended meanwhile."""
    try:
        return {Path(word).name for word in process.cmdline()}
    except psutil.NoSuchProcess:
        return set()


def row(hub: Embedded, number: object) -> Job:
    url = Settings(data=hub.data).database
    with db.reading(url) as session:
        found = session.get(Job, number)
        assert found is not None
    db.engine(url).dispose()
    return found


def hurry(hub: Embedded, number: object) -> None:
    """Take the sleep out of a conversion while its hub is down: its next run is a short one."""
    settings = Settings(data=hub.data)
    echo = formats.get(settings, "echo")
    with db.writing(settings.database) as session:
        job = session.get_one(Job, number)
        options = job.request["options"] | {"sleep": 0}
        keys = {
            name: artefacts.artefact_key(job.repo, str(job.commit), echo, name, options)
            for name in job.request["variants"]
        }
        job.request = job.request | {"options": options, "keys": keys}
    db.engine(settings.database).dispose()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(hub: Embedded, number: signal.Signals) -> None:
    hub.up()
    assert hub.http.get("/healthz").is_success
    assert all(hub.child(name) for name in ("redis", "web", "worker"))
    assert hub.end(number) == 0
    hub.gone()
    assert (hub.folder / "err").read_text() == "Stopped.\n"
    assert not (hub.data / "redis.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_conversion(
    hub: Embedded, converting: dict[str, object], number: signal.Signals
) -> None:
    assert hub.end(number) == 0
    hub.gone()
    assert row(hub, converting["id"]).state == "queued"
    assert list((hub.data / "scratch").iterdir()) == []
    hurry(hub, converting["id"])
    hub.up()
    ended = hub.done(converting)
    assert [one["variant"] for one in ended["artefacts"]] == ["plain"]
    assert hub.end(signal.SIGTERM) == 0


def test_a_signal_in_the_middle_of_an_installation(hub: Embedded) -> None:
    out = hub.folder / "out"

    def installing() -> bool:
        return any({"uv", "pip"} <= words(process) for process in using(hub.data))

    with socket.create_server(("127.0.0.1", 0)) as silent, out.open("wb") as log:
        # All that uv asks for is there, where nobody ever answers: it is at work until it is ended.
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hub.env |= {"UV_FIND_LINKS": address, "UV_DEFAULT_INDEX": address, "NO_PROXY": "127.0.0.1"}
        hub.env |= {"UV_CACHE_DIR": str(hub.folder / "cache"), "UV_HTTP_TIMEOUT": "600"}
        hub.process = psutil.Popen(
            [*UP, "--sample"], cwd=hub.folder, env=hub.env, stdout=log, stderr=log
        )
        wait(installing, "uv at work")
        assert hub.end(signal.SIGTERM) == 0
        hub.gone()
    assert "Traceback" not in out.read_text()


def test_nothing_survives_a_killed_supervisor(hub: Embedded, converting: dict[str, object]) -> None:
    # The supervisor, redis, web and its server, worker and its slot, the converter in its walls.
    assert len(hub.family()) >= 7
    hub.end(signal.SIGKILL)
    hub.gone()
    hurry(hub, converting["id"])
    hub.up()
    hub.done(converting)
    assert hub.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("name", ["redis", "web", "worker"])
def test_what_is_killed_is_started_again(hub: Embedded, name: str) -> None:
    assert hub.command("plugins", "install", "echo").returncode == 0
    hub.up()
    hub.mirror()
    before = hub.child(name)
    assert before is not None
    before.kill()
    wait(lambda: f"The {name} process ended and is started" in (hub.folder / "err").read_text())
    wait(lambda: hub.child(name) not in (before, None))

    def answers() -> bool:
        try:
            return hub.http.get("/healthz").is_success
        except httpx.TransportError:
            return False

    wait(answers, "an answer")
    hub.done(hub.convert("plain"))
    assert hub.end(signal.SIGTERM) == 0
    hub.gone()


def test_what_keeps_ending_ends_the_hub_with_its_last_words(hub: Embedded) -> None:
    hub.env["HUB_REDIS_URL"] = "nonsense://"
    hub.folder.mkdir(exist_ok=True)
    slow = 5 * PATIENCE  # of five starts
    done = subprocess.run(
        UP, env=hub.env, capture_output=True, text=True, timeout=slow, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("Error: The worker process")
    assert str(hub.data / "logs") in done.stderr
    assert "Traceback" not in done.stderr
    hub.gone()


def test_what_ends_five_times_a_minute_keeps_ending(tmp_path: Path) -> None:
    child = Child("worker", [], {}, tmp_path / "log")
    for started, flapping in {
        (0, 10, 20, 30): False,
        (0, 10, 20, 30, 59): True,
        (0, 10, 20, 30, 60): False,
        (0, 10, 20, 30, 60, 69): True,
    }.items():
        child.started = list(started)
        assert child.flapping() is flapping


def test_a_second_start_has_everything(hub: Embedded) -> None:
    assert hub.command("plugins", "install", "echo").returncode == 0
    hub.up()
    hub.mirror()
    made = hub.done(hub.convert("plain", "loud"))
    files = [file["url"] for one in made["artefacts"] for file in one["files"]]
    contents = [hub.http.get(url).content for url in files]
    assert len(files) == 2
    assert all(contents)
    assert hub.end(signal.SIGTERM) == 0

    hub.up()
    assert hub.job(made["id"]) == made
    assert hub.http.get("/api/v1/models/org/model").json()["id"] == "org/model"
    assert [hub.http.get(url).content for url in files] == contents
    again = hub.convert("plain", "loud")
    assert again["state"] == "done"
    assert hub.end(signal.SIGTERM) == 0


def test_a_long_data_path(tmp_path: Path) -> None:
    hub = Embedded(tmp_path / ("long" * 30))
    try:
        hub.up()
        hub.mirror()  # through Redis, whose socket's path the kernel would not take there
        worker = hub.child("worker")
        assert worker is not None
        # Of the worker: Redis puts its title where its own variables were.
        socket_path = worker.environ()["HUB_REDIS_URL"].removeprefix("unix://")
        assert not socket_path.startswith(str(hub.data))
        assert hub.end(signal.SIGTERM) == 0
        hub.gone()
        assert not Path(socket_path).parent.exists()
    finally:
        hub.clean()


def test_paths_are_those_of_the_callers_folder(hub: Embedded) -> None:
    plugin = hub.folder / "mine" / "toy"
    plugin.mkdir(parents=True)
    (plugin / "plugin.toml").write_text("api = 1\n")
    hub.env |= {"HUB_DATA": "data", "HUB_PLUGINS": "mine"}
    hub.up()
    shown = hub.http.get("/api/v1/plugins").json()["items"]
    assert "toy" in {item["name"] for item in shown}
    assert (hub.data / "hub.sqlite").exists()
    assert hub.end(signal.SIGTERM) == 0
    hub.gone()


# -- refusals: one sentence, a next step, exit code 1


def refused(env: dict[str, str]) -> str:
    done = slmhub(env, "up")
    assert (done.returncode, done.stdout) == (1, "")
    sentence, hint = done.stderr.splitlines()
    assert sentence.startswith("Error: ")
    assert hint
    return sentence


def test_a_second_hub_on_the_same_folder(hub: Embedded) -> None:
    hub.up()
    assert hub.process is not None
    other = Embedded(hub.folder)  # the same folder on another port
    assert f"Another hub (process {hub.process.pid}) uses" in refused(other.env)
    assert hub.http.get("/healthz").is_success
    other.http.close()
    assert hub.end(signal.SIGTERM) == 0


def test_a_port_in_use(hub: Embedded) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", hub.port))
        taken.listen()
        sentence = refused(hub.env)
    assert f"The port {hub.port} on 127.0.0.1 cannot be used: Address already in use" in sentence
    hub.up()  # the refusal left nothing locked
    assert hub.end(signal.SIGTERM) == 0


def test_an_address_that_is_not_of_this_machine(tmp_path: Path) -> None:
    env = environment(tmp_path / "data", HUB_HOST="192.0.2.1", HUB_ADMIN_TOKEN="t" * 32)
    assert "192.0.2.1 cannot be used" in refused(env)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/hub")):
        assert f"The data folder {data} cannot be written" in refused(environment(data))


def test_without_an_admin_token_it_stays_at_home(tmp_path: Path) -> None:
    env = environment(tmp_path / "data", HUB_HOST="127.0.0.2")
    assert "no admin token is set" in refused(env)
    assert not (tmp_path / "data").exists()


def test_a_name_that_is_no_address(tmp_path: Path) -> None:
    env = environment(tmp_path / "data", HUB_HOST="no host", HUB_ADMIN_TOKEN="t" * 32)
    assert "cannot be used" in refused(env)
