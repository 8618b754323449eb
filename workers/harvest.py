"""Taking what a converter made: its files are checked, and brought where it cannot reach them.

The converter may still run, with any of its files and folders open. So nothing is opened by a path
that it could exchange: folders are walked by descriptor, links are never followed, and files are
copied while it lives. Only after its end are they moved.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from hub import names
from hub.errors import HubError, InvalidRequest

MAX_FILES = 10_000
MAX_DEPTH = 16
CHUNK = 1 << 26

KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class BadOutput(HubError):
    """What a converter left cannot be published."""

    status = 422
    title = "Conversion failed"


@dataclass
class _Harvest:
    target: Path
    move: bool
    left: int  # bytes that may still be taken
    taken: list[Path]


def take(folder: Path, target: Path, *, limit: int, move: bool) -> list[Path]:
    """Bring all files of `folder` into the new folder `target`; their paths, relative and sorted.

    Only regular files with a single name and a path that a repo may hold are taken, `limit` bytes
    in all. `move` only when nothing of the converter runs any more. Raises BadOutput.
    """
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BadOutput(
            "no_artefact",
            f"The converter reported {folder.name} as finished and left no files.",
            "This is a fault of the plugin: tell its authors.",
        ) from None
    except NotADirectoryError:
        raise _bad(folder.name, "is not a folder") from None
    target.mkdir(parents=True)
    harvest = _Harvest(target, move, limit, [])
    try:
        _walk(harvest, top, Path())
    finally:
        os.close(top)
    if not harvest.taken:
        raise BadOutput(
            "no_artefact",
            f"The converter reported {folder.name} as finished and left no files.",
            "This is a fault of the plugin: tell its authors.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    return sorted(harvest.taken)


def _walk(harvest: _Harvest, folder: int, below: Path) -> None:
    if len(below.parts) > MAX_DEPTH:
        raise _bad(str(below), "is too deep")
    for name in os.listdir(folder):
        path = below / name
        if len(harvest.taken) >= MAX_FILES:
            raise _bad("output", f"holds more than {MAX_FILES} files")
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise _bad(str(path), f"is {KINDS.get(stat.S_IFMT(mode), 'not a regular file')}")
        try:
            names.check_path(path.as_posix())
            # Not blocking: what was a file a moment ago may have become a FIFO.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        except InvalidRequest as error:
            raise _bad(str(path), f"is not a name that a repo may hold: {error.message}") from None
        except OSError as error:
            raise _bad(str(path), f"cannot be read: {error.strerror}") from None
        try:
            if stat.S_ISDIR(mode):
                _walk(harvest, descriptor, path)
            else:
                _file(harvest, folder, descriptor, path)
        finally:
            os.close(descriptor)


def _file(harvest: _Harvest, folder: int, descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _bad(str(path), "is not a regular file")
    if found.st_nlink != 1:
        raise _bad(str(path), "is a hard link: it has another name")
    if found.st_size > harvest.left:
        raise BadOutput(
            "output_too_large",
            f"{path} has {found.st_size:,} bytes, and {harvest.left:,} are left of the limit.",
            "An operator can raise HUB_OUTPUT_LIMIT.",
        )
    harvest.left -= found.st_size
    target = harvest.target / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if harvest.move:
        os.rename(path.name, target, src_dir_fd=folder)
        if found.st_uid != os.geteuid():
            os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o644)
    else:
        _copy(descriptor, target, found.st_size)
    harvest.taken.append(path)


def _copy(source: int, target: Path, size: int) -> None:
    """Copy inside the kernel, and as a shared extent where the file system can; `size` at most."""
    with target.open("xb") as file:
        done = 0
        while done < size:
            count = min(CHUNK, size - done)
            try:
                moved = os.copy_file_range(source, file.fileno(), count, done, done)
            except OSError:  # a file system or a pair of them that cannot
                moved = os.sendfile(file.fileno(), source, done, count)
            if moved == 0:  # it was cut short meanwhile: what is published is what was read
                break
            done += moved


def _bad(path: str, what: str) -> BadOutput:
    return BadOutput(
        "bad_output",
        f"The converter's output cannot be published: {path!r} {what}.",
        "This is a fault of the plugin, or an attempt of the model: tell the plugin's authors.",
    )
