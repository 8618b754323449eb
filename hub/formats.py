"""The formats the hub can convert to: plugins, known through their manifests alone.

A plugin is a folder with a `plugin.toml`. Reading one runs no code of it, and a manifest that is
wrong never raises: its Format carries the `problem`, is listed with it, and harms nothing else.
"""

import difflib
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as Invalid

from hub.config import Settings
from hub.errors import Unprocessable
from hub.manifest import API, Manifest, Option, Run, Value, Variant

log = logging.getLogger(__name__)

MANIFEST = "plugin.toml"
LOCK = "requirements.txt"
LIMIT = 1 << 20
"""Bytes that a manifest may have."""
_REPAIR = "Repair the plugin (docs/plugins.md has the keys and files), or take another."


class Format(BaseModel):
    """A plugin as the hub knows it. With a `problem`, only folder, name and title mean anything."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    name: str
    title: str
    api: int = API
    version: str = "0"
    runtime: str = ""
    summary: str = ""
    needs: list[str] = []
    repo: str = "{source}"
    variants: list[Variant] = []
    options: dict[str, Option] = {}
    tools: list[str] = []
    smoke: list[str] = []
    licenses: list[str] = []
    platforms: list[str] = []
    command: list[str] | None = None
    appraises: bool = False
    run: list[Run] = []
    hidden: bool = False
    lock_digest: str = Field("", description="SHA-256 of requirements.txt")
    problem: str | None = Field(None, description="Why it cannot be used: the key and the cause")
    remedy: str = Field("", description="What to do about the problem")

    @cached_property
    def _variants(self) -> dict[str, Variant]:
        return {variant.name: variant for variant in self.variants}

    def variant(self, name: str) -> Variant:
        """The variant of that name; Unprocessable naming those there are."""
        if name not in self._variants:
            raise Unprocessable(
                "unknown_variant",
                f"{self.title} has no variant {name!r}.",
                f"Choose among {', '.join(self._variants) or 'none'}.",
            )
        return self._variants[name]

    def validate_options(self, given: Mapping[str, object]) -> dict[str, Value]:
        """All options with their typed values, defaults filled in; Unprocessable otherwise."""
        for name in given:
            if name not in self.options:
                raise Unprocessable(
                    "unknown_option",
                    f"{self.title} has no option {name!r}.",
                    f"Its options are {', '.join(self.options)}."
                    if self.options
                    else "It has no options.",
                )
        values: dict[str, Value] = {}
        for name, option in self.options.items():
            try:
                values[name] = option.parse(given[name]) if name in given else option.default
            except ValueError:
                raise Unprocessable(
                    "bad_option",
                    f"{str(given[name])[:80]!r} is not a value of the option {name!r}.",
                    f"It takes {option.allowed}.",
                ) from None
        return values

    def lacks(self, files: list[str]) -> str | None:
        """The sentence that says which needed file a repo has not; no code is run."""
        for pattern in self.needs:
            if not any(fnmatch(path, pattern) for path in files):
                return f"{self.title} needs a file {pattern}, and the repo has none."
        return None


def formats(settings: Settings) -> dict[str, Format]:
    """Every plugin by name, broken ones with their `problem`; of one name the first found wins."""
    found: dict[str, Format] = {}
    for folder in _folders(settings):
        fmt = read(folder)
        found.setdefault(fmt.name, fmt)
    return dict(sorted(found.items()))


def shown(settings: Settings) -> list[Format]:
    """All that there is to show: every plugin, then those whose name an earlier folder has taken.

    The latter are not used; their `problem` says so.
    """
    first: dict[str, Format] = {}
    lost: list[Format] = []
    for folder in _folders(settings):
        fmt = read(folder)
        winner = first.setdefault(fmt.name, fmt)
        if winner is not fmt:
            problem = f"name: {fmt.name!r} is taken by a plugin of an earlier folder"
            remedy = "Rename it, in its manifest and as that of its folder."
            lost.append(fmt.model_copy(update={"problem": problem, "remedy": remedy}))
    return [*(first[name] for name in sorted(first)), *lost]


def get(settings: Settings, name: str) -> Format:
    """The plugin of that name, if its manifest is sound; Unprocessable naming the known ones."""
    known = formats(settings)
    if name not in known:
        raise Unprocessable(
            "unknown_plugin",
            f"There is no plugin {name[:80]!r}.",
            f"Known are {', '.join(known)}." if known else "No plugin is installed.",
        )
    fmt = known[name]
    if fmt.problem:
        raise Unprocessable(
            "broken_plugin",
            f"The plugin {name!r} is broken: {fmt.problem}",
            fmt.remedy,
        )
    return fmt


def read(folder: Path) -> Format:
    """The plugin in a folder. Never raises: what is wrong becomes its `problem`."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(LIMIT + 1)
        if len(text) > LIMIT:
            raise ValueError(f"it is larger than {LIMIT:,} bytes")
        raw = tomllib.loads(text.decode())
        lock = folder / LOCK
        locked = lock.read_bytes() if lock.exists() else None
    except RecursionError:
        return _broken(folder, f"{MANIFEST}: it is nested too deeply")
    except (OSError, ValueError) as error:
        return _broken(folder, f"{MANIFEST}: {_reason(error)}")
    given = raw.get("api")
    if type(given) is not int or given != API:
        problem = f"api: {given!r:.40} is not spoken here; this hub speaks {API}"
        return _broken(folder, problem, raw, "Take a version of the plugin that speaks it.")
    try:
        manifest = Manifest.model_validate(raw)
    except Invalid as error:
        return _broken(folder, _cause(error), raw)
    if manifest.name != folder.name:
        return _broken(
            folder, f"name: {manifest.name!r} must be the name of its folder, {folder.name!r}", raw
        )
    if manifest.command is None:
        if not (folder / "convert.py").is_file():
            return _broken(folder, "convert.py: is missing, and there is no command instead", raw)
        if locked is None:
            return _broken(folder, f"{LOCK}: is missing; it may be empty", raw)
    return Format(
        folder=folder,
        lock_digest=hashlib.sha256(locked or b"").hexdigest(),
        **{name: getattr(manifest, name) for name in Manifest.model_fields},
    )


def source_name(source: str) -> str:
    """A source repo inside file and repo names: `Qwen/Qwen3-0.6B` → `Qwen_Qwen3-0.6B`."""
    return source.replace("/", "_")


def derived_repo(fmt: Format, settings: Settings, source: str, variant: str) -> str:
    """The repo that a variant of a source is published in, as `hub/Qwen_Qwen3-0.6B-GGUF`."""
    name = fmt.repo.format_map({"source": source_name(source), "variant": variant})
    return f"{settings.namespace}/{name}"


def unsupported_here(fmt: Format) -> str | None:
    """Why this machine cannot run the plugin at all, or None."""
    here = f"{sys.platform}-{platform.machine()}"
    if fmt.platforms and here not in fmt.platforms:
        return f"it runs on {', '.join(fmt.platforms)}, this is {here}"
    if (
        fmt.command
        and not (fmt.folder / fmt.command[0]).exists()
        and not shutil.which(fmt.command[0])
    ):
        return f"its program {fmt.command[0]!r} is not on this machine"
    return None


@dataclass(frozen=True)
class State:
    """Whether a plugin can convert here: `ready`, or another name and the reason."""

    name: str
    reason: str = ""

    @property
    def ready(self) -> bool:
        return self.name == "ready"

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.reason else self.name


def environment(settings: Settings, fmt: Format) -> Path:
    """Where the plugin's environment is found once it is ready: a link to the folder it is in.

    The name holds the digest of the pins and the Python version, so a change of either asks for a
    new environment and leaves the old one alone.
    """
    key = f"{fmt.lock_digest[:16]}-{sys.implementation.cache_tag}-{platform.python_version()}"
    return settings.environments / fmt.name / key


def state(settings: Settings, fmt: Format) -> State:
    """The plugin's state, from files alone: an installation in another process is seen too."""
    if fmt.problem:
        return State("broken", fmt.problem)
    reason = unsupported_here(fmt)
    if reason:
        return State("unsupported here", reason)
    if fmt.command is not None and not (fmt.folder / LOCK).exists():
        return State("ready")
    place = environment(settings, fmt)
    if (place / ".ready").is_file() and (place / "bin" / "python").exists():
        return State("ready")
    if _locked(place.parent / ".lock"):
        return State("installing")
    broken = place.with_name(place.name + ".broken")
    if broken.is_file():
        return State("broken", broken.read_text("utf-8", "replace").strip())
    return State("not installed", f"run `slmhub plugins install {fmt.name}`")


def _folders(settings: Settings) -> Iterator[Path]:
    for parent in settings.plugin_folders:
        if parent in settings.plugins and _holds_manifest(parent):
            yield parent  # HUB_PLUGINS may name a plugin itself too
            continue
        try:
            inside = sorted(parent.iterdir())
        except OSError as error:
            if parent.is_dir():
                log.warning("the plugins in %s cannot be read: %s", parent, error.strerror)
            continue
        yield from (path for path in inside if _holds_manifest(path))


def _holds_manifest(folder: Path) -> bool:
    """Whether a folder is meant to be a plugin; one that may not be entered is, and is broken."""
    try:
        return (folder / MANIFEST).is_file()
    except PermissionError:
        return folder.is_dir()


def _broken(
    folder: Path, problem: str, raw: Mapping[str, Any] | None = None, remedy: str = _REPAIR
) -> Format:
    title = (raw or {}).get("title") or None
    return Format(
        folder=folder,
        # The folder's name, not the manifest's: a broken manifest must not displace a sound one.
        name=folder.name,
        title=title[:80] if isinstance(title, str) and title.isprintable() else folder.name,
        problem=problem,
        remedy=remedy,
    )


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)


def _cause(error: Invalid) -> str:
    """The most telling finding, as `variants.2.bits: what is wrong`."""
    # A misspelt key before the one that is missing for it.
    found = error.errors(include_url=False)
    first = min(found, key=lambda one: one["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    messages = {"extra_forbidden": "is not a known key", "missing": "is missing"}
    said = messages.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden" and (meant := _meant(str(first["loc"][-1]))):
        said += f"; {meant!r} is"
    return f"{where}: {said}" if where else said


def _meant(key: str) -> str | None:
    """The key that a misspelt one looks like."""
    known = {
        field.alias or name
        for table in (Manifest, Variant, Option, Run)
        for name, field in table.model_fields.items()
    }
    return next(iter(difflib.get_close_matches(key, sorted(known - {key}), 1)), None)


def _locked(path: Path) -> bool:
    """Whether another process holds the lock of an installation."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
