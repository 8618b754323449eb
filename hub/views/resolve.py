"""Downloads: `/{org}/{name}/resolve/{revision}/{path}`, as Hugging Face's clients ask for them."""

import re
from pathlib import PurePosixPath
from urllib.parse import quote

from flask import Blueprint, Response, g
from werkzeug.exceptions import NotFound as NoRoute

from hub import names, repos
from hub.blobs import BlobStore
from hub.config import Settings
from hub.db import reading
from hub.errors import NotFound, Unavailable
from hub.models import Blob, Commit, File
from hub.security import reads
from hub.serving import send
from hub.views import hf_wire
from hub.web import current_settings

blueprint = Blueprint("resolve", __name__)

_TEXT = re.compile(r"txt|md|jsonl?|ya?ml|toml|cfg|ini|py|jinja|csv|tsv|xml|html|svg")
_IMAGES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
}

blueprint.after_request(hf_wire.open_to_scripts)


@blueprint.get("/<org>/<name>/resolve/<path:rest>")
@reads
def resolve(org: str, name: str, rest: str) -> Response:
    """Send one file of one revision."""
    settings = current_settings()
    revision, path = hf_wire.revision_and_path(rest, after="/resolve/")
    if not path:
        raise NoRoute
    file, commit = _find(settings, f"{org}/{name}", revision, path)
    store = BlobStore(settings.blobs)
    blob = store.path(file.sha256)
    internal = None
    if settings.x_accel:
        internal = f"{settings.x_accel.rstrip('/')}/{blob.relative_to(settings.blobs).as_posix()}"
    try:
        blob.stat()  # neither HEAD nor nginx's way opens it here
        return send(blob, file.size, file.sha256, _headers(file, commit, revision), internal)
    except FileNotFoundError as error:
        raise _damaged(file) from error


@blueprint.get("/<name>/resolve/<path:rest>")
@reads
def without_organisation(name: str, rest: str) -> Response:  # noqa: ARG001
    """Answer those who ask by Hugging Face's oldest names, which have no organisation."""
    raise NotFound(
        "repo_not_found",
        f"There is no repo {name[:96]!r}: repos here are named organisation/name.",
        "Ask for it by its full name, as in openai-community/gpt2.",
    )


def _find(settings: Settings, name: str, revision: str, path: str) -> tuple[File, Commit]:
    names.check_name(name)
    names.check_revision(revision)
    names.check_path(path)
    with reading(settings.database) as session:
        repo = repos.find(session, name)
        commit = repos.resolve(session, repo, revision)
        g.commit = commit.sha  # clients remember that a file is not there, by this header
        file = repos.file(session, commit, path)
        blob = session.get(Blob, file.sha256)
        session.expunge_all()
    if blob is None or blob.quarantined:
        raise _damaged(file)
    return file, commit


def _damaged(file: File) -> Unavailable:
    return Unavailable(
        "file_damaged",
        f"The bytes of {file.path} are damaged or lost on this hub, and are not sent.",
        "The operator heals it with `slmhub fsck`, or by mirroring or converting again.",
    )


def _headers(file: File, commit: Commit, revision: str) -> dict[str, str]:
    name = PurePosixPath(file.path).name
    ending = name.rpartition(".")[2].lower()
    if ending in _IMAGES:
        kind, disposition = _IMAGES[ending], "inline"
    elif _TEXT.fullmatch(ending):
        kind, disposition = "text/plain; charset=utf-8", "inline"
    else:
        kind, disposition = "application/octet-stream", "attachment"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return {
        "Content-Type": kind,
        "Content-Disposition": (
            f"{disposition}; filename*=UTF-8''{quote(name)}; filename=\"{plain}\""
        ),
        "X-Linked-Etag": f'"{file.sha256}"',
        "X-Linked-Size": str(file.size),
        # What a commit's id names never changes; what main names may, at any moment.
        "Cache-Control": "public, max-age=31536000, immutable"
        if revision == commit.sha
        else "no-cache",
    }
