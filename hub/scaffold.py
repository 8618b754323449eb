"""A new plugin: the skeleton in templates/plugin, under the name that its author gives it."""

import re
from pathlib import Path

from hub import formats
from hub.config import ROOT, Settings
from hub.errors import Conflict, InvalidRequest
from hub.names import RESERVED, shown

SKELETON = ROOT / "templates" / "plugin" / "skeleton"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def write(settings: Settings, name: str, parent: Path) -> Path:
    """Write a working plugin into a new folder of `parent`; returns that folder.

    InvalidRequest for a name that no plugin may have, Conflict for one that is taken.
    """
    _check_name(settings, name)
    folder = parent / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise Conflict(
            "folder_exists",
            f"There is a folder or file {name} in {parent} already.",
            "Take another name or another --folder; nothing was written.",
        ) from None
    except OSError as error:
        raise InvalidRequest(
            "folder_not_writable",
            f"{parent} cannot be written to: {error.strerror}.",
            "Name a folder of yours with --folder.",
        ) from None
    for path in sorted(SKELETON.iterdir()):
        if path.is_file():
            (folder / path.name).write_text(_named(path.read_text("utf-8"), name), "utf-8")
    return folder


def _named(text: str, name: str) -> str:
    """A text of the skeleton with the new name in place of its own."""
    words = {"skeleton": name, "Skeleton": name.replace("-", " ").title(), "SKELETON": name.upper()}
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def _check_name(settings: Settings, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "bad_plugin_name",
            f"{shown(name)} cannot be the name of a plugin.",
            "Take up to 40 of a-z, 0-9 and '-', the first no '-'.",
        )
    if name in RESERVED:
        raise InvalidRequest(
            "reserved_name",
            f"{name!r} is a word of the hub's own addresses.",
            f"Take another name, as my-{name}.",
        )
    if name in formats.formats(settings):
        raise Conflict(
            "plugin_exists",
            f"There is a plugin {name!r} already.",
            "Take another name; `slmhub plugins list` shows those that are taken.",
        )
