"""What Hugging Face's clients send and look for, in downloads and in their API alike."""

from urllib.parse import unquote, urlsplit

from flask import Response, g, request
from werkzeug.exceptions import NotFound as NoRoute

_EXPOSED = (
    "X-Repo-Commit, X-Request-Id, X-Error-Code, X-Error-Message, X-Total-Count, ETag, Link, "
    "Accept-Ranges, Content-Range, Content-Length, Content-Disposition, X-Linked-Size, "
    "X-Linked-ETag, X-Xet-Hash"
)


def open_to_scripts(response: Response) -> Response:
    """Let scripts of any page read an answer, errors included; none may act on this origin.

    The commit in `g.commit`, where a view has found one, goes along.
    """
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = headers.get("Allow", "GET, HEAD, OPTIONS")
        headers["Access-Control-Allow-Headers"] = (
            "Authorization, Content-Type, Range, If-Range, If-None-Match, If-Match, "
            "X-HF-Download-Counter"
        )
        headers["Access-Control-Max-Age"] = "86400"
    headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if "commit" in g:
        headers["X-Repo-Commit"] = g.commit
    return response


def revision_and_path(rest: str, after: str) -> tuple[str, str]:
    """Split what follows `after` in an address. A revision with slashes arrives with them quoted.

    The server has unquoted the path already, so the quoted form is looked up in the request line;
    where the server does not hand it on, only the slashes of `refs/pr/1` are understood. The path
    may be empty.
    """
    raw = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI") or ""
    _, found, quoted = urlsplit(raw).path.partition(after)
    if found and unquote(quoted) == rest:
        first, _, last = quoted.partition("/")
        first, last = unquote(first), unquote(last)
    else:
        first, _, last = rest.partition("/")
    if first == "refs":
        kind, _, last = last.partition("/")
        number, _, last = last.partition("/")
        first = f"refs/{kind}/{number}"
    if not first:
        raise NoRoute
    return first, last
