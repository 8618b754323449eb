"""What a hostile converter tries, behind the walls and without them: it must bite without."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from workbench import wait

from hub import formats, launch
from hub.config import ROOT, Settings
from hub.errors import Unavailable
from hub.formats import Format

pytestmark = pytest.mark.slow  # every test starts real processes

SECRET = "s3cret-canary"
LEVELS = ("strict", "weak")
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    given: str = request.param
    monkeypatch.setattr(launch, "level", lambda _settings: given)
    return given


@contextmanager
def listening(family: int, address: Any) -> Iterator[Any]:
    """Tell the secret to everyone who connects."""
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):  # who asked may have given up
                    connection.sendall(SECRET.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def canary() -> Iterator[psutil.Popen]:
    """A process of the same user with a secret in its environment and in its command line."""
    script = "import signal; signal.pause()"
    process = psutil.Popen(
        [sys.executable, "-c", script, SECRET + "-argument"], env={"TOKEN": SECRET}
    )
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def test_the_self_test_passes_here() -> None:
    assert launch.self_test() is None


def test_without_a_sandbox_nothing_is_converted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_proved", False)
    monkeypatch.setattr(launch, "self_test", lambda: "new namespaces are not allowed")
    with pytest.raises(Unavailable, match="new namespaces are not allowed") as caught:
        launch.level(settings)
    assert caught.value.kind == "sandbox_unavailable"
    assert launch.level(settings.model_copy(update={"sandbox": "weak"})) == "weak"


def test_a_secret_file(convert: Any, level: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    found = convert("read", tmp_path / "secret").found
    assert (SECRET in found) == (level == "weak"), found


def test_environments_of_others(convert: Any, level: str, canary: psutil.Popen) -> None:
    # One process, named: without walls the act could read those of everybody on the machine.
    found = convert("environment", canary.pid).found
    assert (SECRET in found) == (level == "weak")


def test_the_environment_of_process_1(convert: Any) -> None:
    # Behind the walls only, where process 1 is the sandbox's own.
    assert "Permission denied" in convert("read", "/proc/1/environ").found


def test_its_own_environment_is_an_allow_list(
    convert: Any, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HUB_DATABASE_URL", SECRET)
    own = convert("environment").found.splitlines()[0]
    assert SECRET not in own
    assert "'HF_HUB_OFFLINE': '1'" in own


def test_command_lines_of_others(convert: Any, level: str, canary: psutil.Popen) -> None:
    found = convert("process", canary.pid).found
    assert (SECRET in found) == (level == "weak")


def test_a_listener_on_loopback(convert: Any, level: str) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as (host, port):
        found = convert("connect", f"{host}:{port}").found
    assert (SECRET in found) == (level == "weak"), found


def test_a_packet(convert: Any, level: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        found = convert("datagram", f"127.0.0.1:{server.getsockname()[1]}").found
        if level == "weak":
            assert server.recv(100) == b"canary"
        else:
            assert "unreachable" in found
            with pytest.raises(BlockingIOError):
                server.recv(100)


def test_the_address_of_cloud_credentials(convert: Any) -> None:
    assert "unreachable" in convert("connect", "169.254.169.254:80").found


def test_an_abstract_socket(convert: Any, level: str) -> None:
    name = f"canary-{os.getpid()}"
    with listening(socket.AF_UNIX, "\0" + name):
        found = convert("abstract", name).found
    assert (SECRET in found) == (level == "weak"), found


def test_a_socket_in_a_folder(convert: Any, level: str, tmp_path: Path) -> None:
    with listening(socket.AF_UNIX, str(tmp_path / "redis.sock")):
        found = convert("unix", tmp_path / "redis.sock").found
    assert (SECRET in found) == (level == "weak"), found


def test_writing_outside(convert: Any, level: str, tmp_path: Path) -> None:
    convert("write", tmp_path / "outside")
    assert (tmp_path / "outside").exists() == (level == "weak")


def test_changing_the_source(convert: Any, level: str) -> None:
    source = convert.source()
    convert("spoil", source=source)
    assert ((source / "config.json").read_text() == "{}") == (level == "weak")


def test_unlocking_the_source(convert: Any, level: str) -> None:
    source = convert.source()
    (source / "config.json").chmod(0o444)
    convert("unlock", source=source)
    assert ((source / "config.json").stat().st_mode & 0o222 != 0) == (level == "weak")


def test_leaving_code_for_the_next(convert: Any, level: str) -> None:
    assert ("wrote" in convert("poison").found) == (level == "weak")


def test_signalling_a_process(convert: Any, level: str, canary: psutil.Popen) -> None:
    found = convert("kill", canary.pid).found
    if level == "weak":
        assert canary.wait(60) == -signal.SIGUSR1
    else:
        assert "No such process" in found
        assert canary.is_running()


def test_killing_the_parent(convert: Any, level: str) -> None:
    outcome = convert("killparent")
    assert (outcome.kind == "plugin_crashed") == (level == "weak")
    assert ("survived it; its parent is 1" in outcome.found) == (level == "strict")


def test_tracing_the_parent(convert: Any, level: str, rooted: bool) -> None:
    found = convert("trace").found
    if level == "strict" or rooted:  # some kernels refuse it to ordinary users anyway
        assert (found == "attached") == (level == "weak")


def test_new_namespaces(convert: Any, level: str) -> None:
    assert (convert("namespaces").found == "unshared") == (level == "weak")


def test_raising_its_limits(convert: Any) -> None:
    assert "not allowed" in convert("rlimit").found


def test_device_nodes(convert: Any, level: str, rooted: bool) -> None:
    outcome = convert("device")
    if level == "weak" and rooted:
        assert outcome.kind == "bad_output"
    else:
        assert "Operation not permitted" in outcome.found


def test_what_it_sees_of_the_machine(convert: Any, level: str) -> None:
    found = convert("lookaround").found
    assert ("/var" in found) == (level == "weak")
    assert level == "weak" or "['lo']" in found


def test_it_cannot_mount(convert: Any) -> None:
    # Not tried without walls: as root it would cover the machine's own /tmp.
    assert "Operation not permitted" in convert("mount").found


def test_it_has_no_privileges(convert: Any) -> None:
    lines = dict(line.split(":\t", 1) for line in convert("privileges").found.splitlines())
    assert {lines[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert lines["NoNewPrivs"] == "1"
    assert lines["Seccomp"] == "2"
    assert lines["Uid"].split() == ["1000"] * 4


def test_a_daemon_does_not_outlive_it(convert: Any, level: str, tmp_path: Path) -> None:
    outcome = convert("daemon", "/scratch/alive" if level == "strict" else tmp_path / "alive")
    assert outcome.error is None
    alive = outcome.folder / "scratch" / "alive" if level == "strict" else tmp_path / "alive"
    size = alive.stat().st_size
    assert size > 0
    time.sleep(0.3)  # nothing can be waited for: it is about what does not happen
    assert alive.stat().st_size == size


def test_one_job_sees_nothing_of_another(convert: Any) -> None:
    first = convert()
    assert "refused" in convert("read", first.folder / "output.host" / "request.json").found


@pytest.mark.parametrize("who", ["launcher", "parent"])
def test_a_kill_of_the_launcher_or_its_parent_ends_all(
    echo: tuple[Settings, Format], tmp_path: Path, who: str
) -> None:
    plan = by_hand(tmp_path, ["/bin/sleep", "600"])
    script = (
        "import json, os, subprocess, sys\n"
        "plan = json.load(open(sys.argv[1])); plan['parent'] = os.getpid()\n"
        "json.dump(plan, open(sys.argv[1], 'w'))\n"
        "subprocess.run([sys.executable, '-I', sys.argv[2], sys.argv[1]])\n"
    )
    parent = psutil.Popen([sys.executable, "-c", script, str(plan), str(launch.LAUNCHER)])

    def sleeping() -> list[psutil.Process]:
        return [p for p in parent.children(recursive=True) if named(p) == "sleep"]

    wait(sleeping, "a process that sleeps")
    sleeps = sleeping()
    family = parent.children(recursive=True)
    victim = family[0] if who == "launcher" else parent
    victim.kill()
    parent.wait(60)
    _, left = psutil.wait_procs([*family, *sleeps], timeout=60)
    assert not left


def named(process: psutil.Process) -> str | None:
    """The name of a process, unless it has ended meanwhile."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return None


def by_hand(folder: Path, command: list[str], **changes: Any) -> Path:
    """A plan for the launcher, with one writable folder."""
    writable = folder / "writable"
    writable.mkdir(exist_ok=True)
    plan = {
        "level": "strict",
        "parent": os.getpid(),
        "read": {},
        "write": {str(writable): "/output"},
        "command": command,
        "folder": "/",
        "file_size": 1 << 20,
        "processes": 16,
        "tmp": 1 << 20,
        **changes,
    }
    path = folder / "sandbox.json"
    path.write_text(json.dumps(plan))
    return path


def launched(plan: Path, *prefix: str, python: str = sys.executable) -> Any:
    command = [*prefix, python, "-I", str(launch.LAUNCHER), str(plan)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", 128 + signal.SIGSEGV)]
)
def test_the_launcher_ends_as_its_command_ended(tmp_path: Path, script: str, code: int) -> None:
    assert launched(by_hand(tmp_path, ["/bin/sh", "-c", script])).returncode == code


def test_a_command_that_is_not_there_is_told_on_the_wire(tmp_path: Path) -> None:
    ended = launched(by_hand(tmp_path, ["/no/such"]))
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["kind"] == "sandbox_unavailable"
    assert "/no/such cannot be started" in json.loads(ended.stdout)["message"]


def test_a_file_larger_than_the_limit_cannot_be_made(tmp_path: Path) -> None:
    script = "head -c 3000000 /dev/zero > /output/large; wc -c < /output/large"
    assert launched(by_hand(tmp_path, ["/bin/sh", "-c", script])).stdout.strip() == "1048576"


def test_processes_are_bounded_by_the_kernel(tmp_path: Path) -> None:
    script = "for i in $(seq 40); do sleep 20 & done; echo all"
    ended = launched(by_hand(tmp_path, ["/bin/sh", "-c", script]))
    assert "all" not in ended.stdout
    assert "fork" in ended.stderr.lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite already runs as an ordinary user")
def test_it_works_for_an_ordinary_user_too(tmp_path: Path) -> None:
    if not Path(SYSTEM_PYTHON).exists() or not shutil.which("setpriv"):
        pytest.skip("needs the system's Python and setpriv")
    place = Path("/tmp", f"slmhub-user-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        launcher = shutil.copy(ROOT / "workers" / "sandbox.py", place)
        script = (
            "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; echo x > /output/file;"
            "ls /; cat /etc/shadow; kill -9 1; (exec 3<>/dev/tcp/127.0.0.1/1) 2>&1;"
            "sh -c 'for i in $(seq 40); do sleep 20 & done; echo all'"
        )
        plan = by_hand(place, ["/bin/bash", "-c", script])
        os.chown(place / "writable", 65534, 65534)
        starter = (
            "import json, os, sys\n"
            "plan = json.load(open(sys.argv[2])); plan['parent'] = os.getpid()\n"
            "read, write = os.pipe(); os.write(write, json.dumps(plan).encode()); os.close(write)\n"
            "os.set_inheritable(read, True)\n"
            "import subprocess\n"
            "sys.exit(subprocess.run([sys.executable, '-I', sys.argv[1], f'/dev/fd/{read}'],"
            " pass_fds=[read]).returncode)\n"
        )
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        ended = subprocess.run(
            [*user, SYSTEM_PYTHON, "-c", starter, launcher, str(plan)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.stdout.split()[:6] == [
            "1000", "CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:",
        ], ended.stdout + ended.stderr  # fmt: skip
        assert (place / "writable" / "file").read_text() == "x\n"
        assert "home" not in ended.stdout
        assert "unreachable" in ended.stdout
        assert "/etc/shadow: No such file" in ended.stderr
        assert "all" not in ended.stdout
        assert "fork" in ended.stderr
    finally:
        shutil.rmtree(place)


def test_the_state_of_echo_is_ready(echo: tuple[Settings, Format]) -> None:
    assert formats.state(*echo).ready
