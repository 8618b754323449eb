"""Fetches a lost blob again from where it was mirrored.

What a conversion made cannot be fetched: the same request makes it anew (hub/requests.py).
"""

import logging
from collections.abc import Callable

from sqlmodel import col, select

from hub import db
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import HubError
from hub.local import ENDPOINT as LOCAL
from hub.models import Commit, File, Repo
from hub.transfer import Transfer
from hub.upstream import HttpUpstream, never

log = logging.getLogger(__name__)


def from_upstream(settings: Settings) -> Callable[[str], bool]:
    """A function for hub.fsck.check: fetches the blob with a digest, tells whether it did."""

    def heal(sha256: str) -> bool:
        return any(_fetch(settings, sha256, *origin) for origin in _origins(settings, sha256))

    return heal


def _origins(settings: Settings, sha256: str) -> list[tuple[str, str, str, str]]:
    """Endpoint, repo, commit and path of every mirrored file with this digest."""
    query = (
        select(Repo.upstream, Repo.name, Commit.sha, File.path)
        .join(Commit, col(Commit.repo_id) == Repo.id)
        .join(File, col(File.commit_id) == Commit.id)
        .where(File.sha256 == sha256, Repo.kind == "mirrored", Repo.upstream != LOCAL)
    )
    with db.reading(settings.database) as session:
        return [
            (upstream, name, sha, path)
            for upstream, name, sha, path in session.exec(query)
            if upstream
        ]


def _fetch(settings: Settings, sha256: str, endpoint: str, repo: str, sha: str, path: str) -> bool:
    # The token belongs to the endpoint of the settings, and goes nowhere else.
    token = settings.hf_token if endpoint == settings.upstream_url else None
    source = HttpUpstream(endpoint, token, settings.upstream_hosts)
    try:
        snapshot = source.snapshot(repo, sha)
        file = snapshot.file(path)
        if file is None:
            return False
        store = BlobStore(settings.blobs)
        transfer = Transfer(source, snapshot, store, settings.data / "partial")
        transfer.run([file], lambda _done: None, never)
        return store.has(sha256)
    except HubError as error:
        # Not the end of the check: the next origin is tried, and the report says what stays lost.
        log.warning("%s of %s could not be fetched again: %s", path, repo, error.message)
        return False
    finally:
        source.close()
