"""The catalogue: what is mirrored, what could be, and the forms that ask for it."""

from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from hub import catalogue, db, formats, listing, requests, selection
from hub.errors import InvalidRequest
from hub.models import Job, Repo
from hub.security import reads, writes
from hub.tiers import TIERS
from hub.web import current_settings

blueprint = Blueprint("catalogue", __name__)

PAGE = 30
LENGTH = 1024
"""Characters of the longest thing that is asked for: the cursor of a page."""


@dataclass(frozen=True)
class Offer:
    """A model of the selection that is not mirrored yet."""

    model: selection.Selected
    job: Job | None


@dataclass(frozen=True)
class Search:
    """What the visitor looks for, as the address of the page says it."""

    q: str = ""
    tier: str = ""
    license: str = ""
    kind: str = "mirrored"
    sort: str = "updated"
    cursor: str = ""

    @classmethod
    def of_request(cls) -> "Search":
        """The search of this request; what a form left empty is not asked for."""
        given = {name: request.args.get(name, "").strip() for name in cls.__dataclass_fields__}
        for name, value in given.items():
            # PostgreSQL keeps no NUL, and every word is one more condition.
            if "\0" in value or len(value) > LENGTH:
                raise InvalidRequest(
                    "bad_search",
                    f"{name} is longer than {LENGTH} characters, or has a NUL character.",
                    "Ask for less.",
                )
        found = cls(**{name: value for name, value in given.items() if value})
        for name, value, allowed in (
            ("tier", found.tier, ["", *TIERS]),
            ("kind", found.kind, ["mirrored", "derived"]),
        ):
            if value not in allowed:
                raise InvalidRequest(
                    f"unknown_{name}",
                    f"There is no {name} {value[:40]!r}.",
                    f"One of: {', '.join(filter(None, allowed))}.",
                )
        return found

    def address(self, **changes: str) -> str:
        """The address of this search with some of it changed; it begins at the first page."""
        asked = {**self.__dict__, "cursor": "", **changes}
        defaults = Search()
        return url_for(
            "catalogue.index",
            **{name: value for name, value in asked.items() if value != getattr(defaults, name)},
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything but the kind and the order is asked for."""
        return bool(self.q or self.tier or self.license)


@blueprint.get("/")
@reads
def index() -> str:
    """A page of the catalogue."""
    settings = current_settings()
    search = Search.of_request()
    with db.reading(settings.database) as session:
        rows, cursor = listing.page(
            session,
            q=search.q or None,
            tier=search.tier or None,
            kind=search.kind,
            license=search.license or None,
            sort=search.sort,
            cursor=search.cursor or None,
            limit=PAGE,
        )
        counts = catalogue.tiers(
            session, kind=search.kind, q=search.q or None, license=search.license or None
        )
        made = catalogue.made(session, [row.name for row in rows])
        licenses = catalogue.licenses(session, search.kind)
        jobs = catalogue.mirroring(session)
        offers = _offers(catalogue.existing(session, _selected()), jobs, search)
    return render_template(
        "catalogue.html",
        search=search,
        rows=rows,
        next=search.address(cursor=cursor) if cursor else None,
        made=made,
        titles={name: fmt.title for name, fmt in formats.formats(settings).items()},
        tiers=TIERS,
        counts=counts,
        licenses=licenses,
        mirroring=_unlisted(jobs, rows),
        offers=offers if not search.cursor and search.kind == "mirrored" else [],
    )


@blueprint.post("/mirrors")
@writes
def mirror() -> Response:
    """Ask for a mirror of `repo`, as org/name or org/name@revision, and show its job."""
    name, _, revision = request.form.get("repo", "").strip().partition("@")
    asked = request.form.get("revision", "").strip() or revision or "main"
    job = requests.request_mirror(current_settings(), name.strip(), asked)
    return redirect(url_for("jobs.show", job_id=job.id), 303)


@dataclass(frozen=True)
class Group:
    """A collection of the selection, as far as it is not mirrored."""

    title: str
    note: str
    offers: list[Offer] = field(default_factory=list)


def _selected() -> list[str]:
    return [model.repo for group in selection.load() for model in group.models]


def _offers(here: set[str], jobs: dict[str, Job], search: Search) -> list[Group]:
    groups = []
    for group in selection.load():
        offers = [
            Offer(model, jobs.get(model.repo))
            for model in group.models
            if model.repo not in here and _matches(model, search)
        ]
        if offers:
            groups.append(Group(group.title, group.note, offers))
    return groups


def _matches(model: selection.Selected, search: Search) -> bool:
    words = search.q.lower().split()
    return (
        all(word in f"{model.repo} {model.title}".lower() for word in words)
        and search.tier in ("", model.tier)
        and search.license in ("", model.license)
    )


def _unlisted(jobs: dict[str, Job], rows: list[Repo]) -> list[Any]:
    """The mirrors on their way that no row of the page stands for."""
    shown = {row.name for row in rows}
    return [job for name, job in jobs.items() if name not in shown]
