"""Sending a file: which bytes a request is for, and how they leave without passing through Python.

Ranges follow RFC 9110 where it says "must", and nginx where it leaves the choice, so that a hub
behind nginx answers as a hub alone does: one range is served; where several are satisfiable the
header is ignored and the whole file sent; what is no range at all is refused as one that cannot be
satisfied.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, cast

from flask import Response, request
from werkzeug.http import parse_etags, quote_etag

BLOCK = 1024 * 1024
"""Bytes read at a time where the server has no sendfile."""

_MAX = 2**63 - 1
_RANGE = re.compile(r" *(?:(\d+) *- *(\d*)|-(\d+)) *", re.ASCII)


@dataclass(frozen=True)
class Span:
    """The bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Unsatisfiable(Exception):
    """No byte of the file is in the range that was asked for."""


def span(header: str | None, size: int) -> Span | None:
    """The part of a file of `size` bytes that a Range header asks for; None: all of it.

    Raises Unsatisfiable.
    """
    if header is None or len(header) < 7 or header[:6].lower() != "bytes=":
        return None
    found: Span | None = None
    for text in header[6:].split(","):
        one = _one(text, size)
        if one.length > 0:
            if found is not None:
                return None
            found = one
        elif one.start == 0:  # of an empty file
            return None
    if found is None:
        raise Unsatisfiable
    return found


def _one(text: str, size: int) -> Span:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise Unsatisfiable
    first, last, suffix = (int(part) if part else None for part in match.groups())
    if max(first or 0, last or 0, suffix or 0) > _MAX:
        raise Unsatisfiable
    if suffix is not None:
        return Span(max(0, size - suffix), size)
    assert first is not None
    return Span(first, size if last is None else min(size, last + 1))


def send(
    path: Path, size: int, etag: str, headers: dict[str, str], accelerate: str | None = None
) -> Response:
    """Answer a GET or HEAD for a file with all, one part or none of its bytes.

    `etag` is a strong validator without quotes. `accelerate` is the address under which nginx has
    the file: then the answer names it, and nginx sends the bytes. Raises OSError if it is gone.
    """
    quoted = quote_etag(etag)
    common = {**headers, "ETag": quoted, "Accept-Ranges": "bytes"}
    if "If-Match" in request.headers and not _matches("If-Match", etag, weak=False):
        return Response(status=HTTPStatus.PRECONDITION_FAILED, headers=common)
    if _matches("If-None-Match", etag, weak=True):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=common)
    wanted = request.headers.get("Range") if request.method == "GET" else None
    if request.headers.get("If-Range", quoted) != quoted:
        wanted = None
    try:
        part = span(wanted, size)
    except Unsatisfiable:
        return _unsatisfiable(size, quoted)
    # Not for HEAD, which nginx would answer with 206, nor for conditions it would judge by the
    # time of its file.
    if accelerate and request.method == "GET" and not _judged_by_time():
        response = Response(headers={**common, "X-Accel-Redirect": accelerate})
        if part is None:
            del response.headers["Accept-Ranges"]  # nginx says so itself, but not with a 206
        return response
    return _bytes(path, size, part, common)


def _unsatisfiable(size: int, quoted: str) -> Response:
    response = Response(
        f"The file has {size} bytes.\n",
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        mimetype="text/plain",
    )
    response.headers.update(
        {"Content-Range": f"bytes */{size}", "ETag": quoted, "Cache-Control": "no-store"}
    )
    return response


def _matches(name: str, etag: str, *, weak: bool) -> bool:
    value = request.headers.get(name)
    if value is None:
        return False
    tags = parse_etags(value)
    return tags.contains_weak(etag) if weak else tags.contains(etag)


def _judged_by_time() -> bool:
    return "If-Match" in request.headers or "If-Unmodified-Since" in request.headers


def _bytes(path: Path, size: int, part: Span | None, headers: dict[str, str]) -> Response:
    covered = part or Span(0, size)
    response = Response(headers=headers)
    if part is not None:
        response.status_code = HTTPStatus.PARTIAL_CONTENT
        response.headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    if request.method == "GET":
        file = path.open("rb")
        file.seek(covered.start)
        response.response = _body(file, covered.length)
        response.direct_passthrough = True
    response.content_length = covered.length
    return response


def _body(file: BinaryIO, length: int) -> Iterable[bytes]:
    """The next `length` bytes of a file.

    A server's own wrapper stops after Content-Length bytes (PEP 3333), and gunicorn's sends them
    with sendfile from the present position. Werkzeug would wrap the file once more for a range,
    and gunicorn would no longer see that it is one.
    """
    wrapper = cast(
        "Callable[[BinaryIO, int], Iterable[bytes]] | None",
        request.environ.get("wsgi.file_wrapper"),
    )
    return wrapper(file, BLOCK) if wrapper is not None else _blocks(file, length)


def _blocks(file: BinaryIO, length: int) -> Iterator[bytes]:
    with file:
        while length > 0 and (block := file.read(min(BLOCK, length))):
            length -= len(block)
            yield block
