"""The environments of plugins: built with uv, proved by an import, put in place in one step.

    environments/<plugin>/<key>              a link to the folder that is in use
    environments/<plugin>/<key>.<time>       a folder: what it holds, and .ready once it is proved
    environments/<plugin>/<key>.broken       why the last attempt failed
    environments/<plugin>/.lock              held while an attempt runs

The key is made of the pins and the Python version (hub.formats.environment). A virtual environment
holds its own path, so each is built where it stays, and the link is what is swapped. A folder that
no link names counts for nothing: an attempt that was killed leaves one, and the next removes it.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from hub import formats, launch
from hub.config import Settings
from hub.environments import in_use, leftovers, unused
from hub.errors import HubError, Unprocessable
from hub.formats import LOCK, Format

SMOKE_SECONDS = 300
Report = Callable[[str], None]

# What operators configured for pip holds for uv too, unless they configured uv itself.
PIP_FOR_UV = {
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "SSL_CERT_FILE": "PIP_CERT",
}


class InstallFailed(HubError):
    """An environment could not be built."""

    status = 500
    title = "Installation failed"


def install(settings: Settings, fmt: Format, report: Report, *, force: bool = False) -> Path:
    """Build the plugin's environment and put it in place; its folder.

    Does nothing when it is ready, unless `force`d. `report` gets lines of progress. A failure
    leaves what was there before as it was. Raises InstallFailed; Unprocessable for a plugin that is
    broken or cannot run here.
    """
    reason = fmt.problem or formats.unsupported_here(fmt)
    if reason:
        raise Unprocessable(
            "plugin_not_installable",
            f"The plugin {fmt.name!r} cannot be installed: {reason}",
            "`slmhub plugins list` shows all plugins with their states.",
        )
    place = formats.environment(settings, fmt)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent / ".lock", report):
        # Looked at again with the lock in hand: another process may have just done it.
        if not force and formats.state(settings, fmt).ready:
            return place.resolve()
        _sweep(place.parent)
        broken = place.with_name(place.name + ".broken")
        folder = place.with_name(f"{place.name}.{time.time_ns():x}")
        try:
            _build(settings, fmt, folder, report)
        except InstallFailed as error:
            shutil.rmtree(folder, ignore_errors=True)
            broken.write_text(error.message, "utf-8")
            raise
        link = folder.with_name(folder.name + ".link")
        link.symlink_to(folder.name)
        link.replace(place)
        broken.unlink(missing_ok=True)
        _sweep(place.parent)
    report(f"{fmt.title} is ready")
    return folder


def python(settings: Settings, fmt: Format) -> Path:
    """The interpreter of the plugin's environment."""
    return formats.environment(settings, fmt) / "bin" / "python"


def tool_versions(settings: Settings, fmt: Format) -> dict[str, str]:
    """The versions of the tools that the manifest names, as they were when it was installed."""
    ready = formats.environment(settings, fmt) / ".ready"
    if not ready.is_file():
        return {}
    return dict(json.loads(ready.read_bytes())["versions"])


def add(python: Path, package: str, folder: Path) -> None:
    """Install a package for an interpreter into a folder that is no part of its environment."""
    command = [find_uv_bin(), "pip", "install", "--python", str(python), "--target", str(folder)]
    _uv([*command, *_index(), package], lambda _line: None)


def prove(settings: Settings, fmt: Format, report: Report) -> dict[str, str]:
    """Import once more what must import, in the environment that is in place; its tools' versions.

    Raises InstallFailed.
    """
    place = formats.environment(settings, fmt)
    if not place.exists():
        return {}
    with in_use(place):
        return _smoke(settings, fmt, place.resolve(), report)


def _build(settings: Settings, fmt: Format, folder: Path, report: Report) -> None:
    report(f"making an environment for {fmt.title}")
    uv = find_uv_bin()
    # The interpreter that the hub itself runs on: its version is in the key.
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    interpreter = str(base if base.exists() else sys.executable)
    _uv([uv, "venv", "--no-project", "--python", interpreter, str(folder)], report)
    lock = fmt.folder / LOCK
    if lock.exists() and _asks_for_something(lock):
        # What is not listed is not installed: an author leaves out what a package asks for and does
        # not need, and an operator sees in one file all that will be there.
        # Compiled once here: converters cannot write there, and would compile at every start.
        target = ["--no-deps", "--compile-bytecode", "--python", str(folder / "bin" / "python")]
        _uv([uv, "pip", "install", *target, *_index(), "-r", str(lock)], report)
    versions = _smoke(settings, fmt, folder, report)
    staged = folder / ".ready.new"
    with staged.open("w", encoding="utf-8") as file:
        json.dump({"versions": versions, "lock": fmt.lock_digest, "made": time.time()}, file)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(folder / ".ready")


def _index() -> list[str]:
    """That there is no index, where pip is told so: uv has no variable for it."""
    there_is_none = os.environ.get("PIP_NO_INDEX", "").lower() in ("1", "true", "yes", "on")
    return ["--no-index"] if there_is_none else []


def _uv(command: list[str], report: Report) -> None:
    """Run uv; its lines go to `report`, and its last ones into the error."""
    environment = {**os.environ, "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    for ours, pips in PIP_FOR_UV.items():
        if ours not in environment and environment.get(pips):
            # pip separates by spaces; uv takes commas, but for indexes spaces too.
            between = "," if ours == "UV_FIND_LINKS" else " "
            environment[ours] = between.join(environment[pips].split())
    environment.pop("VIRTUAL_ENV", None)
    tail: deque[str] = deque(maxlen=12)
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        umask=0o022,  # the sandbox's user must be able to read it
    ) as process:
        if process.stdout is None:
            raise ValueError("no pipe")
        try:
            for line in process.stdout:
                tail.append(line.rstrip())
                report(line.rstrip())
        except BaseException:
            process.kill()  # nobody listens any more: Ctrl-C, or a report that failed
            raise
    if process.returncode != 0:
        raise InstallFailed(
            "install_failed",
            "uv could not install its requirements: " + "\n".join(tail)[-2000:],
            "Check the network or PIP_FIND_LINKS and PIP_INDEX_URL, then install it again.",
        )


def _smoke(settings: Settings, fmt: Format, folder: Path, report: Report) -> dict[str, str]:
    """Import what the manifest says must import, in the sandbox; the versions of its tools."""
    if fmt.command is not None or not (fmt.smoke or fmt.tools):
        return {}
    report("trying it: " + ", ".join([*fmt.smoke, *fmt.tools]))
    # On the data folder's disk and not in /tmp, which may be small.
    with tempfile.TemporaryDirectory(prefix=".smoke-", dir=folder) as scratch:
        return _imported(settings, fmt, folder, Path(scratch))


def _imported(settings: Settings, fmt: Format, folder: Path, scratch: Path) -> dict[str, str]:
    work = scratch / "work"
    work.mkdir()
    request = launch.Request(action="smoke", smoke=fmt.smoke, tools=fmt.tools, scratch=work)
    plan = launch.plan(settings, fmt, folder, request, scratch)
    try:
        answer = launch.ask(plan, SMOKE_SECONDS)
    except TimeoutError:
        raise InstallFailed(
            "install_failed",
            f"its modules did not import within {SMOKE_SECONDS} s",
            "Try again when the machine has less to do.",
        ) from None
    except launch.SaidTooMuch:
        raise InstallFailed(
            "install_failed",
            f"its modules said more than {launch.ANSWER:,} bytes when imported",
            "Tell the plugin's authors.",
        ) from None
    last = launch.last_event(answer.output)
    if answer.code != 0 or last.get("event") != "done":
        words = answer.errors.decode("utf-8", "replace").strip()[-1000:]
        raise InstallFailed(
            "install_failed",
            f"its modules do not import: {last.get('message') or words or 'no reason was given'}",
            "Only what requirements.txt lists is installed, and that does not work here: all pins "
            "must be in it, as `uv pip compile` writes them.",
        )
    return {str(name): str(version) for name, version in last["versions"].items()}


def _sweep(parent: Path) -> None:
    """Remove the folders that no link names and no conversion uses: replaced, or never finished."""
    for path in leftovers(parent):
        with unused(path) as free:
            if path.is_symlink():
                path.unlink()
            elif free:
                shutil.rmtree(path)


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Hold the plugin's lock; the system lets go of it when this process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another installation of it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _asks_for_something(lock: Path) -> bool:
    lines = (line.strip() for line in lock.read_text("utf-8").splitlines())
    return any(line and not line.startswith("#") for line in lines)
