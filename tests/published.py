"""A hub with something to serve: repos whose files the test chooses."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from hub import db, repos
from hub.blobs import BlobStore, lfs_pointer_sha1
from hub.config import Settings


def publish(
    settings: Settings,
    name: str,
    files: Mapping[str, bytes],
    *,
    ref: str | None = None,
    kind: str = "mirrored",
    facts: dict[str, Any] | None = None,
    large: Collection[str] = (),
    **columns: Any,
) -> str:
    """Make a commit of these files the main one of a repo, and return its id.

    Those that are `large` are known by their SHA-256, as files in LFS are upstream.
    """
    store = BlobStore(settings.blobs)
    entries = []
    for path, data in files.items():
        stored = store.add_bytes(data)
        lfs = path in large
        sha1 = lfs_pointer_sha1(stored.sha256, stored.size) if lfs else stored.git_sha1
        entries.append(repos.Entry(path, stored.sha256, stored.size, sha1, lfs))
    sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
    with db.writing(settings.database) as session:
        repos.add_commit(
            session,
            name=name,
            kind=kind,
            sha=sha,
            entries=entries,
            facts=facts or {},
            ref=ref,
            **columns,
        )
    return sha
