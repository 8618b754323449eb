"""Downloads: `/{org}/{name}/resolve/{revision}/{path}`, as Hugging Face's clients ask for them."""

import re
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import NotFound as NoRoute

from hub import repos
from hub.blobs import BlobStore
from hub.config import Settings
from hub.db import reading
from hub.errors import NotFound, Unavailable
from hub.models import Blob, Commit, File
from hub.security import reads
from hub.serving import send
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
_EXPOSED = (
    "X-Repo-Commit, X-Request-Id, X-Error-Code, X-Error-Message, X-Total-Count, ETag, Link, "
    "Accept-Ranges, Content-Range, Content-Length, Content-Disposition, X-Linked-Size, "
    "X-Linked-ETag, X-Xet-Hash"
)


@blueprint.after_request
def _open_to_scripts(response: Response) -> Response:
    """Let scripts of any page read files, errors included; no file may act on this origin."""
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
        headers["Access-Control-Allow-Headers"] = (
            "Authorization, Range, If-Range, If-None-Match, If-Match, X-HF-Download-Counter"
        )
        headers["Access-Control-Max-Age"] = "86400"
    headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if "commit" in g:
        headers["X-Repo-Commit"] = g.commit
    return response


@blueprint.get("/<org>/<name>/resolve/<path:rest>")
@reads
def resolve(org: str, name: str, rest: str) -> Response:
    """Send one file of one revision."""
    settings = current_settings()
    revision, path = _revision_and_path(rest)
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


def _revision_and_path(rest: str) -> tuple[str, str]:
    """Split what follows `resolve/`. A revision with slashes arrives with them quoted.

    The server has unquoted the path already, so the quoted form is looked up in the request line;
    where the server does not hand it on, only the slashes of `refs/pr/1` are understood.
    """
    raw = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or ""
    _, found, quoted = urlsplit(raw).path.partition("/resolve/")
    if found and unquote(quoted) == rest:
        first, _, last = quoted.partition("/")
        first, last = unquote(first), unquote(last)
    else:
        first, _, last = rest.partition("/")
    if first == "refs":
        kind, _, last = last.partition("/")
        number, _, last = last.partition("/")
        first = f"refs/{kind}/{number}"
    if not first or not last:
        raise NoRoute
    return first, last


def _find(settings: Settings, name: str, revision: str, path: str) -> tuple[File, Commit]:
    repos.check_name(name)
    repos.check_revision(revision)
    repos.check_path(path)
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
