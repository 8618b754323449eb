"""A local folder as upstream: it holds one repo, its commit id is a digest of its files."""

import hashlib
import os
from pathlib import Path

from hub import intake
from hub.blobs import hash_file
from hub.errors import InvalidRequest, NotFound, Unprocessable
from hub.names import check_name, check_path, check_revision
from hub.patience import Cancelled
from hub.upstream import MAX_READ, Cancel, RemoteFile, Snapshot, never

ENDPOINT = "a local folder"
LARGE = 10_000_000
"""Bytes above which a file is known by its SHA-256, as upstream does with LFS."""


def readable(folder: Path) -> bool:
    """Whether this is a folder, and the hub's user may look into it."""
    try:
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    except OSError:  # one of the folders above it may not be entered
        return False


class LocalUpstream:
    """A folder with the files of a repo, as `hf download` or git leave it.

    Links are followed only into the folder itself and into the blobs of a Hugging Face cache.
    """

    def __init__(self, folder: Path, allow_pickle: bool = False) -> None:
        if not folder.is_absolute() or not readable(folder):
            raise InvalidRequest(
                "bad_folder",
                f"{folder.name or 'This'} is not a folder on the hub's machine that it may read",
                "Give the absolute path of a folder with config.json and the weights in it",
            )
        self.folder = folder.resolve()
        self.allow_pickle = allow_pickle

    def snapshot(self, repo: str, revision: str, cancelled: Cancel = never) -> Snapshot:
        """See Upstream. Only files that may be taken are hashed, and make up the commit id; the
        revision is just a name for the result."""
        check_name(repo)
        check_revision(revision)
        files = []
        total = hashlib.sha256()
        for path in self._paths():
            if cancelled():
                raise Cancelled
            if not intake.candidate(path, self.allow_pickle):
                files.append(RemoteFile(path, 0))
                continue
            try:
                file = self.path(path)
                large = path.endswith(".safetensors") or file.stat().st_size > LARGE
                stored = hash_file(file, lfs=large)
            except PermissionError as error:
                raise Unprocessable(
                    "not_readable",
                    f"The hub's user may not read {path}",
                    "Give it the right to, or copy the folder",
                ) from error
            sha256 = stored.sha256 if large else None
            files.append(RemoteFile(path, stored.size, sha256, stored.git_sha1))
            total.update(f"{stored.sha256} {path}\n".encode())
        return Snapshot(repo, total.hexdigest()[:40], revision, files, ENDPOINT)

    def read(
        self, snapshot: Snapshot, path: str, start: int, end: int, cancelled: Cancel = never
    ) -> bytes:
        """See Upstream."""
        del snapshot, cancelled
        if end - start > MAX_READ:
            raise ValueError(f"{end - start} bytes are too many to read at once")
        with self.path(path).open("rb") as file:
            file.seek(start)
            found = file.read(end - start)
        if len(found) != end - start:
            raise NotFound("entry_not_found", f"{path} changed while it was read", "Try again")
        return found

    def path(self, path: str) -> Path:
        """The file at a path of the repo. NotFound when it is none, or leads elsewhere."""
        real = (self.folder / check_path(path)).resolve()
        allowed = [self.folder]
        if self.folder.parent.name == "snapshots":
            allowed.append(self.folder.parent.parent / "blobs")
        if not real.is_file() or not any(real.is_relative_to(folder) for folder in allowed):
            raise NotFound(
                "entry_not_found",
                f"{path} is no file, or a link that leads out of the folder",
                "Put the file itself into the folder",
            )
        return real

    def close(self) -> None:
        """Nothing is kept open."""

    def _paths(self) -> list[str]:
        found = []
        for root, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [
                (Path(root) / name).relative_to(self.folder).as_posix()
                for name in names
                if not name.startswith(".") and not name.endswith(".py")
            ]
        return sorted(found)
