"""Adding plugins from outside: looked at, asked about, put in place in one step, and removed.

    <data>/plugins/<name>                a link to what was added, or a folder that an author wrote
    <data>/plugins/.added/<id>/<name>    what was added
    <data>/plugins/.added/.lock          held while links change

Only files are copied and read here. What runs a plugin's code are processes of their own.
"""

import fcntl
import os
import secrets
import shutil
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import col, func, select

from hub import db, environments, formats, unpacking
from hub.config import ROOT, Settings
from hub.errors import Conflict, NotFound, Unprocessable
from hub.formats import LOCK, MANIFEST, Format
from hub.models import ACTIVE, Job

HOUR = 3600
_STORE = ".added"


@dataclass(frozen=True)
class Offer:
    """A plugin that was unpacked and is sound, and is not in use yet."""

    fmt: Format
    files: int
    bytes: int
    requirements: list[str]
    replaces: Format | None = None

    @property
    def from_elsewhere(self) -> list[str]:
        """Requirements that are no pins from the operator's package index: options, addresses."""
        return [
            line
            for line in self.requirements
            if line.startswith(("-", ".", "/")) or "://" in line or " @ " in line
        ]


@contextmanager
def offered(settings: Settings, origin: Path, *, replace: bool = False) -> Iterator[Offer]:
    """Unpack a folder or an archive beside the plugins and look at it; gone at the end if not put.

    Raises Unprocessable for what is no sound plugin, Conflict for a name that is taken.
    """
    place = _store(settings) / secrets.token_hex(8)
    place.mkdir()
    try:
        taken = place / "taken"
        taken.mkdir()
        unpacking.take(origin, taken)
        fmt = _read(taken)
        earlier = _holder(settings, fmt.name, replace=replace)
        files = [path for path in fmt.folder.rglob("*") if path.is_file()]
        yield Offer(
            fmt,
            len(files),
            sum(path.stat().st_size for path in files),
            _requirements(fmt),
            earlier,
        )
    finally:
        with _alone(settings):
            if not _named(settings, place):
                shutil.rmtree(place, ignore_errors=True)


def put(settings: Settings, offer: Offer) -> Format:
    """Put an offered plugin in place, at once and whole; the plugin as it is found from now on."""
    fmt = offer.fmt
    with _alone(settings):
        _holder(settings, fmt.name, replace=offer.replaces is not None)
        if not fmt.folder.is_dir():  # swept, as what a killed process left
            raise Conflict("offer_expired", "Nobody answered for an hour.", "Add it again.")
        place = settings.added_plugins / fmt.name
        earlier = place.resolve() if place.is_symlink() else None
        link = settings.added_plugins / _STORE / f"{fmt.name}.link"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(_STORE, fmt.folder.parent.name, fmt.name))
        link.replace(place)
        # A job may have begun since it was asked: what it uses stays until the next change.
        if earlier is not None and not _jobs(settings, fmt.name):
            shutil.rmtree(earlier.parent, ignore_errors=True)
        _sweep(settings)
    return formats.read(place)


def remove(settings: Settings, name: str) -> list[str]:
    """Remove a plugin that was added, and its environments; the names of these.

    Artefacts that it made stay. NotFound, Unprocessable for what was not added, Conflict while jobs
    of it are not over.
    """
    with _alone(settings), ExitStack() as held:
        place = settings.added_plugins / name
        if "/" in name or not place.is_symlink():
            raise _not_added(settings, name)
        _refuse_active(settings, name)
        kept = {fmt.folder for fmt in formats.formats(settings).values() if fmt.name == name}
        parent = settings.environments / name
        mine = kept <= {place}  # else another plugin has the name, and these are its environments
        found = sorted(parent.glob("[!.]*")) if mine and parent.is_dir() else []
        free = held.enter_context(environments.not_installing(parent)) if found else True
        if not free or not all(held.enter_context(environments.unused(path)) for path in found):
            raise Conflict(
                "plugin_in_use",
                f"The environment of {name} is being built or used.",
                "Try it again when that is over.",
            )
        removed = [path.name for path in found if path.is_symlink()]
        target = place.resolve()
        place.unlink()
        if target.parent.parent == (settings.added_plugins / _STORE).resolve():
            shutil.rmtree(target.parent, ignore_errors=True)
        if found:
            shutil.rmtree(parent)
        _sweep(settings)
    return removed


def _read(taken: Path) -> Format:
    """The plugin that was unpacked, in a folder of its own name; Unprocessable if it is not one."""
    if not (taken / MANIFEST).is_file():
        raise Unprocessable(
            "no_plugin",
            f"There is no {MANIFEST} in it.",
            "Give the folder or archive of one plugin; docs/plugins.md says what belongs in it.",
        )
    folder = taken.with_name(_declared(taken / MANIFEST) or taken.name)
    taken.rename(folder)
    for path in (folder.parent, folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)  # whatever the umask: the sandbox's user must be able to read it
    fmt = formats.read(folder)
    if fmt.problem:
        raise Unprocessable(
            "broken_plugin",
            f"The plugin is broken: {fmt.problem}",
            "Nothing was added. Repair it, or ask its authors for another version.",
        )
    return fmt


def _declared(manifest: Path) -> str | None:
    """The name that a manifest gives, if it can be a folder's: formats.read judges the rest."""
    try:
        name = tomllib.loads(manifest.read_text("utf-8")).get("name")
    except (OSError, ValueError, RecursionError):
        return None
    return name if isinstance(name, str) and name.replace("-", "").isalnum() else None


def _requirements(fmt: Format) -> list[str]:
    lock = fmt.folder / LOCK
    lines = lock.read_text("utf-8", "replace").splitlines() if lock.is_file() else []
    found = [line.strip().removesuffix("\\").strip() for line in lines]
    return [line for line in found if line and not line.startswith(("#", "--hash="))]


def _holder(settings: Settings, name: str, *, replace: bool) -> Format | None:
    """The added plugin that will be replaced; Conflict where the name is not to be had."""
    place = settings.added_plugins / name
    found = formats.formats(settings).get(name)
    if found is None and not (place.exists() and not place.is_symlink()):
        return None
    if found is None or found.folder != place or not place.is_symlink():
        raise Conflict(
            "plugin_exists",
            f"The name {name!r} is taken: {_whose(settings, found or formats.read(place))}.",
            "Nothing was added. Give it another name, in its manifest and as that of its folder.",
        )
    if not replace:
        raise Conflict(
            "plugin_exists",
            f"A plugin {name!r} was added before (version {found.version}).",
            "Nothing was added. --replace puts this one in its place.",
        )
    _refuse_active(settings, name)
    return found


def _not_added(settings: Settings, name: str) -> Unprocessable | NotFound:
    found = formats.formats(settings).get(name)
    if found is None:
        return NotFound(
            "unknown_plugin",
            f"There is no plugin {name[:80]!r}.",
            "`slmhub plugins list` shows those there are.",
        )
    return Unprocessable(
        "not_added",
        f"{name} cannot be removed: {_whose(settings, found)}.",
        "Only what `slmhub plugins add` has added is removed this way.",
    )


def _whose(settings: Settings, fmt: Format) -> str:
    parent = fmt.folder.parent
    if parent == ROOT / "plugins":
        return "it is one of the hub's own"
    if parent == settings.added_plugins:
        return f"its author keeps it in {parent}; delete the folder there"
    return f"it lies in {parent}, by way of HUB_PLUGINS; delete or move its folder there"


def _refuse_active(settings: Settings, name: str) -> None:
    count = _jobs(settings, name)
    if count:
        raise Conflict(
            "plugin_in_use",
            f"{count} jobs of {name} are not over."
            if count > 1
            else f"A job of {name} is not over.",
            "Wait for the end, or cancel: `slmhub jobs list --state active` shows which.",
        )


def _jobs(settings: Settings, name: str) -> int:
    """How many jobs of a plugin are not over; none where there never was a database."""
    url = settings.database
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return 0
    query = select(func.count()).where(col(Job.plugin) == name, col(Job.state).in_(ACTIVE))
    with db.reading(url) as session:
        return int(session.exec(query).one())


def _store(settings: Settings) -> Path:
    store = settings.added_plugins / _STORE
    store.mkdir(parents=True, exist_ok=True)
    return store


def _named(settings: Settings, place: Path) -> bool:
    """Whether a link leads into a folder of the store."""
    links = (path for path in settings.added_plugins.iterdir() if path.is_symlink())
    return any(place.name in link.readlink().parts for link in links)


def _sweep(settings: Settings) -> None:
    """Remove what was replaced or never put, and is an hour old: nobody can be asking about it."""
    for place in _store(settings).iterdir():
        try:
            inside = [path.name for path in place.iterdir()] if place.is_dir() else []
            old = time.time() - place.stat().st_mtime > HOUR
        except FileNotFoundError:  # it was offered elsewhere, and has just been declined
            continue
        unused = old and not any(_jobs(settings, name) for name in inside)
        if unused and place.is_dir() and not _named(settings, place):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Let nobody else change the links while this lasts."""
    descriptor = os.open(_store(settings) / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
