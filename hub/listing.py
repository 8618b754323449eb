"""Lists of repos, page by page: a cursor tells where one ended, whatever appears meanwhile."""

import base64
import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, func, or_, type_coerce
from sqlmodel import Session, col, select

from hub.errors import HubError, InvalidRequest
from hub.models import Repo
from hub.names import shown

# One entry a sort order: its key, and whether the highest come first.
_ORDERS: dict[str, tuple[ColumnElement[Any], bool]] = {
    "updated": (type_coerce(col(Repo.updated_at), Float), True),
    "name": (func.lower(col(Repo.name)), False),
    "parameters": (func.coalesce(col(Repo.parameters), -1), True),
    "created": (type_coerce(col(Repo.created_at), Float), True),
}


def page(
    session: Session,
    *,
    q: str | None = None,
    tier: str | None = None,
    kind: str | None = "mirrored",
    license: str | None = None,
    architecture: str | None = None,
    source: str | None = None,
    sort: str = "updated",
    cursor: str | None = None,
    limit: int = 50,
    also: Iterable[ColumnElement[bool]] = (),
) -> tuple[list[Repo], str | None]:
    """A page of repos and the cursor of the next, None at the end.

    `q`: words that all occur in the name, in any case. `sort`: updated, parameters and created
    (highest first), name. `also`: further conditions that must hold. Repos that appear meanwhile
    make no page skip or repeat one.
    """
    if sort not in _ORDERS:
        raise InvalidRequest(
            "bad_sort",
            f"{shown(sort)} is no order of a list, only {', '.join(_ORDERS)} are",
            "Choose one of them",
        )
    key, descending = _ORDERS[sort]
    limit = max(1, min(limit, 1000))
    query = select(Repo, key.label("position"))
    for word in (q or "").split():
        query = query.where(func.lower(col(Repo.name)).contains(word.lower(), autoescape=True))
    wanted = (
        (Repo.tier, tier),
        (Repo.kind, kind),
        (Repo.license, license),
        (Repo.architecture, architecture),
        (Repo.source, source),
    )
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    query = query.where(*also)
    if cursor is not None:
        position, last = read_cursor(cursor, sort, str if sort == "name" else float)
        beyond = key < position if descending else key > position
        query = query.where(or_(beyond, and_(key == position, col(Repo.id) > last)))
    query = query.order_by(key.desc() if descending else key, col(Repo.id)).limit(limit + 1)
    rows = session.exec(query).all()
    found = [row[0] for row in rows[:limit]]
    if len(rows) <= limit:
        return found, None
    end = found[-1].id
    assert end is not None
    return found, write_cursor(sort, rows[limit - 1][1], end)


def write_cursor(sort: str, position: str | float, last: int) -> str:
    """An opaque text for use in addresses that tells where a page of a list ended."""
    text = json.dumps([sort, position, last], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, sort: str, kind: type[str] | type[float]) -> tuple[str | float, int]:
    """The position and row id in a cursor; InvalidRequest (bad_cursor) for any other text."""
    bad: HubError = InvalidRequest(
        "bad_cursor", "This is not the address of a page of the list", "Begin at the first page"
    )
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad from error
    if not isinstance(found, list) or len(found) != 3 or found[0] != sort:
        raise bad
    position, last = found[1], found[2]
    numeric = type(position) in (int, float) and abs(position) < 2**62
    if not (numeric if kind is float else isinstance(position, str) and position.isprintable()):
        raise bad
    if type(last) is not int or not 0 <= last < 2**62:
        raise bad
    return position, last
