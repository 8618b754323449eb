"""The page of a repo: its facts, its card, its files, and the formats it can be had in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from hub import catalogue, db, formats, listing, markdown, repos, requests
from hub.blobs import BlobStore
from hub.commandlines import commands
from hub.config import Settings
from hub.errors import HubError, InvalidRequest
from hub.formats import Format
from hub.manifest import Variant
from hub.models import ACTIVE, Artefact, Commit, File, Job, JobState, Repo
from hub.security import reads, writes
from hub.views.verdicts import Verdict, verdicts
from hub.web import current_settings

blueprint = Blueprint("model", __name__)

CARD = "README.md"
PREVIEW = 512 * 1024
"""Bytes of the largest text file that is shown as a page."""
CLASSES = {
    "full": "Full precision, 32 bit",
    "half": "Half precision, 16 bit",
    "medium": "Medium, 5 to 8 bit",
    "low": "Low, 3 to 4 bit",
    "ultra-low": "Ultra-low, 1 to 2 bit",
}


@dataclass(frozen=True)
class Cell:
    """One variant of one format of one commit: there, on its way, failed, or missing."""

    variant: Variant
    size: int | None
    """Bytes to expect, from the parameters and the bits of each."""
    artefact: Artefact | None = None
    job: Job | None = None

    @property
    def state(self) -> str:
        if self.artefact is not None:
            return "ready"
        if self.job is None:
            return "missing"
        if self.job.state in ACTIVE:
            return "active"
        return "failed" if self.job.state == JobState.FAILED else "missing"


@dataclass(frozen=True)
class Section:
    """One format on the page of a model, its cells by precision class."""

    format: Format
    state: formats.State
    verdict: Verdict
    classes: list[tuple[str, list[Cell]]]

    @property
    def cells(self) -> list[Cell]:
        return [cell for _, cells in self.classes for cell in cells]

    @property
    def open(self) -> bool:
        """Whether variants can be asked for."""
        return self.state.ready and self.verdict.asked and self.verdict.reason is None

    @property
    def ready(self) -> int:
        return sum(cell.state == "ready" for cell in self.cells)


@blueprint.get("/<org>/<name>")
@reads
def show(org: str, name: str) -> str:
    """A repo at a revision (`?revision=`, else main)."""
    settings = current_settings()
    revision = request.args.get("revision") or "main"
    with db.reading(settings.database) as session:
        repo = repos.find(session, f"{org}/{name}")
        commit = repos.resolve(session, repo, revision)
        files = repos.files(session, commit)
        if repo.kind == "derived":
            artefacts = catalogue.published_in(session, [repo.name])[repo.name]
            jobs = {}
        else:
            artefacts = catalogue.made_from(session, {repo.name: commit.sha})[repo.name]
            jobs = dict(catalogue.latest_jobs(session, repo.name, commit.sha))
        derived = listing.page(session, kind="derived", source=repo.name, sort="name")[0]
    common = {
        "repo": repo,
        "commit": commit,
        "revision": revision,
        "facts": commit.facts or repo.facts,
        "files": files,
        "total": sum(file.size for file in files),
        "card": _card(settings, repo, commit, files),
        "commands": commands,
        "base_url": settings.base_url,
    }
    if repo.kind == "derived":
        return render_template("derived.html", **common, **_derived(settings, repo, artefacts))
    sections = _sections(settings, repo, commit, files, artefacts, jobs)
    return render_template(
        "model.html", **common, sections=sections, derived=derived, class_titles=CLASSES
    )


@blueprint.post("/<org>/<name>/convert")
@writes
def convert(org: str, name: str) -> Response:
    """Ask for the variants that were ticked: `variant` is plugin:name, one job a plugin.

    `only` is a single one, from the button beside it. Options are `option:plugin:name`.
    """
    settings = current_settings()
    asked: dict[str, list[str]] = {}
    chosen = [request.form["only"]] if "only" in request.form else request.form.getlist("variant")
    for item in chosen:
        plugin, _, variant = item.partition(":")
        asked.setdefault(plugin, []).append(variant)
    if not asked:
        raise InvalidRequest(
            "nothing_chosen", "No variant was chosen.", "Go back and tick at least one."
        )
    made = [
        requests.request_conversion(
            settings,
            f"{org}/{name}",
            request.form.get("revision") or "main",
            plugin,
            variants,
            _options(plugin),
        )
        for plugin, variants in asked.items()
    ]
    if len(made) == 1:
        return redirect(url_for("jobs.show", job_id=made[0].id), 303)
    return redirect(url_for("jobs.index", repo=f"{org}/{name}"), 303)


@blueprint.get("/<org>/<name>/blob/<revision>/<path:path>")
@reads
def blob(org: str, name: str, revision: str, path: str) -> str:
    """One file: its text if it is one, its size and digest in any case."""
    settings = current_settings()
    with db.reading(settings.database) as session:
        repo = repos.find(session, f"{org}/{name}")
        commit = repos.resolve(session, repo, revision)
        file = repos.file(session, commit, path)
    text = _text(settings, file)
    card = None
    if text is not None and path.lower().endswith(".md"):
        card = markdown.render(text, repo=repo.name, revision=revision)
    return render_template(
        "blob.html", repo=repo, commit=commit, revision=revision, file=file, text=text, card=card
    )


def _options(plugin: str) -> dict[str, str]:
    """The options of a plugin in this request's form; empty fields take the default."""
    prefix = f"option:{plugin}:"
    return {
        key.removeprefix(prefix): request.form.getlist(key)[-1]
        for key in request.form
        if key.startswith(prefix) and request.form.getlist(key)[-1] != ""
    }


def _sections(
    settings: Settings,
    repo: Repo,
    commit: Commit,
    files: list[File],
    artefacts: Iterable[Artefact],
    jobs: dict[tuple[str, str], Job],
) -> list[Section]:
    known = [fmt for fmt in formats.formats(settings).values() if not fmt.hidden]
    states = {fmt.name: formats.state(settings, fmt) for fmt in known}
    answers = verdicts.about(
        settings,
        [fmt for fmt in known if states[fmt.name].ready],
        commit,
        files,
    )
    there = {(row.plugin, row.variant): row for row in artefacts}
    sections = []
    for fmt in known:
        cells = [
            Cell(
                variant,
                int(repo.parameters * variant.bits / 8) if repo.parameters else None,
                there.get((fmt.name, variant.name)),
                jobs.get((fmt.name, variant.name)),
            )
            for variant in fmt.variants
        ]
        by_class = [
            (name, [cell for cell in cells if cell.variant.class_ == name]) for name in CLASSES
        ]
        sections.append(
            Section(
                fmt,
                states[fmt.name],
                answers.get(fmt.name, Verdict(asked=False)),
                [(name, found) for name, found in by_class if found],
            )
        )
    # What can be used or asked for comes first, what is broken last.
    return sorted(sections, key=lambda one: (not one.ready, not one.open, one.format.problem or ""))


def _derived(settings: Settings, repo: Repo, artefacts: list[Artefact]) -> dict[str, Any]:
    known = formats.formats(settings).get(repo.plugin or "")
    bits = {v.name: v for v in known.variants} if known else {}
    rows = sorted(
        artefacts,
        key=lambda row: bits[row.variant].bits if row.variant in bits else 0,
        reverse=True,
    )
    return {"format": known, "artefacts": rows, "variants": bits}


def _card(settings: Settings, repo: Repo, commit: Commit, files: list[File]) -> Any:
    """The repo's card as HTML, or None."""
    found = next((file for file in files if file.path == CARD), None)
    text = found and _text(settings, found, markdown.LIMIT)
    return markdown.render(text, repo=repo.name, revision=commit.sha) if text else None


def _text(settings: Settings, file: File, limit: int = PREVIEW) -> str | None:
    """The beginning of a file as text; None if it is too large to be one, or binary, or damaged."""
    if file.size > limit and file.path != CARD:
        return None
    try:
        with BlobStore(settings.blobs).open(file.sha256) as stream:
            data = stream.read(limit)
    except (HubError, OSError):
        return None  # a blob that fsck took away: the page still says what the file was
    if b"\0" in data:
        return None
    return data.decode("utf-8", "replace")
