"""Taking a folder or an archive that somebody else packed: plain files, inside, and not too many.

Links, devices, absolute paths and paths with `..` are refused, whatever they lead to. What begins
with a dot (a checkout's .git, an editor's files) and compiled Python are left out.
"""

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from hub.errors import Unprocessable
from hub.names import shown
from hub.sizes import size

FILES = 2000
BYTES = 32_000_000
"""Files and bytes that may be taken: code and texts, not models."""
SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
_LEFT_OUT = ("__pycache__", "__MACOSX")
_CHUNK = 1 << 16


def take(origin: Path, folder: Path) -> None:
    """Copy the files of a folder, or of an archive with or without one top folder, into `folder`.

    `folder` is new and empty; after an error it may hold some of them. Raises Unprocessable.
    """
    taker = _Taker(origin, folder)
    with _reading(origin):
        if origin.is_dir():
            _copy(origin, taker)
            return
        if not origin.is_file():
            raise _refusal(origin, "There is neither a folder nor a file.", "Look at the path.")
        name = origin.name.lower()
        if not name.endswith(SUFFIXES):
            raise _refusal(origin, "It is no archive.", f"Give a folder, {', '.join(SUFFIXES)}.")
        if origin.stat().st_size > BYTES:
            raise _too_much(origin)
        if name.endswith(".zip"):
            _unzip(origin, taker)
        else:
            _untar(origin, taker)
    _lift(folder)


class _Taker:
    """Writes what is taken into the folder, and counts it."""

    def __init__(self, origin: Path, folder: Path) -> None:
        self.origin, self.folder = origin, folder
        self.entries = self.bytes = 0

    def place(self, name: str) -> Path | None:
        """Where an entry of this name goes; None if it is left out. Unprocessable if it may not."""
        self.entries += 1
        if self.entries > FILES:
            raise _too_much(self.origin)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        absolute = name.startswith("/") or name[1:2] == ":"
        if absolute or ".." in parts or "\\" in name or not name.isprintable():
            raise self.refused(name, "has a path that leads out of the folder")
        if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 1000:
            raise self.refused(name, "has too long a path")
        if any(part.startswith(".") or part in _LEFT_OUT for part in parts):
            return None
        return self.folder.joinpath(*parts)

    def write(self, name: str, executable: bool, stream: IO[bytes]) -> None:
        """Take one file."""
        path = self.place(name)
        if path is None:
            return
        if path == self.folder:
            raise self.refused(name, "has no name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise self.refused(name, "is there twice") from None
        with file:
            while data := stream.read(_CHUNK):
                self.bytes += len(data)
                if self.bytes > BYTES:
                    raise _too_much(self.origin)
                file.write(data)
        path.chmod(0o755 if executable else 0o644)

    def refused(self, name: str, why: str) -> Unprocessable:
        """The error for one entry."""
        return _refusal(
            self.origin,
            f"Its entry {shown(name)} {why}.",
            "Pack regular files alone; nothing of it was added.",
        )


def _copy(origin: Path, taker: _Taker) -> None:
    for parent, folders, names in os.walk(origin, onerror=_raise):
        inside = Path(parent).relative_to(origin)
        folders.sort()
        # A folder that is left out is not looked into: a checkout's history is large.
        for name in list(folders):
            path = Path(parent, name)
            if name.startswith(".") or name in _LEFT_OUT:
                folders.remove(name)
            elif path.is_symlink():
                raise taker.refused((inside / name).as_posix(), "is a link")
        for name in sorted(names):
            path = Path(parent, name)
            entry = (inside / name).as_posix()
            if name.startswith("."):
                continue
            # Looked at and opened without following: what is a link or a pipe is never read.
            if not stat.S_ISREG(path.lstat().st_mode):
                raise taker.refused(entry, "is a link or a device")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                taker.write(entry, os.access(path, os.X_OK), stream)


def _unzip(origin: Path, taker: _Taker) -> None:
    with zipfile.ZipFile(origin) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.filename.endswith("/"):  # what is_dir() asks, which fails on an empty name
                taker.place(entry.filename)
                continue
            if kind not in (0, stat.S_IFREG):
                raise taker.refused(entry.filename, "is a link or a device")
            # The others unpack a whole file at a time, however large.
            packed = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if entry.flag_bits & 1 or not packed:
                raise taker.refused(entry.filename, "is encrypted or packed in a rare way")
            with archive.open(entry) as stream:
                taker.write(entry.filename, bool(entry.external_attr >> 16 & 0o100), stream)


def _untar(origin: Path, taker: _Taker) -> None:
    with origin.open("rb") as raw:
        plain = raw if origin.name.lower().endswith(".tar") else gzip.GzipFile(fileobj=raw)
        bounded = cast(IO[bytes], _Bounded(origin, cast(IO[bytes], plain)))
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            for entry in archive:
                if entry.isdir():
                    taker.place(entry.name)
                    continue
                stream = archive.extractfile(entry) if entry.isreg() else None
                if stream is None:
                    raise taker.refused(entry.name, "is a link or a device")
                taker.write(entry.name, bool(entry.mode & 0o100), stream)


class _Bounded:
    """A stream that ends in an error where a bomb would go on: headers unpack to memory."""

    def __init__(self, origin: Path, stream: IO[bytes]) -> None:
        self._origin, self._stream = origin, stream
        self._left = 2 * BYTES

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much(self._origin)
        return data


def _lift(folder: Path) -> None:
    """Where all lies in one top folder, as most archives have it, let that be the folder."""
    inside = list(folder.iterdir())
    if len(inside) != 1 or not inside[0].is_dir():
        return
    top = inside[0].rename(folder.with_name(folder.name + ".top"))
    folder.rmdir()
    top.rename(folder)


@contextmanager
def _reading(origin: Path) -> Iterator[None]:
    """Turn what the readers raise about a damaged archive or an unreadable file into words."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise _refusal(origin, f"It is damaged: {error}.", "Pack or fetch it again.") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise _refusal(
            origin, f"It cannot be copied: {reason}.", "Pack or fetch it again."
        ) from None


def _raise(error: OSError) -> None:
    raise error


def _too_much(origin: Path) -> Unprocessable:
    return _refusal(
        origin,
        f"It holds more than {FILES:,} files or {size(BYTES)}.",
        "A plugin is code and texts; its tools come through requirements.txt.",
    )


def _refusal(origin: Path, cause: str, hint: str) -> Unprocessable:
    return Unprocessable("bad_archive", f"{shown(origin.name)} cannot be added. {cause}", hint)
