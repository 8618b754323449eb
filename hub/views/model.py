"""The page of a repo: its facts, its card, its files, and the formats it can be had in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from hub import catalogue, db, formats, launch, listing, markdown, prospects, repos, requests, space
from hub.asking import Estimate
from hub.blobs import BlobStore
from hub.commandlines import commands
from hub.config import Settings
from hub.errors import HubError, InvalidRequest
from hub.formats import Format
from hub.manifest import Variant
from hub.models import ACTIVE, Artefact, Commit, File, Job, JobState, Repo
from hub.security import reads, writes
from hub.views import choices
from hub.views.choices import Choice, Plan
from hub.views.verdicts import PATIENCE, Verdict, verdicts
from hub.web import current_settings

blueprint = Blueprint("model", __name__)

CARD = "README.md"
PREVIEW = 512 * 1024
"""Bytes of the largest text file that is shown as a page."""
SECONDS = 20
"""Seconds that a request waits for the plugins to say what it takes."""
FEW = 6
"""Variants of a format that are shown without folding any."""
CLASSES = {
    "full": "Full precision, 32 bit",
    "half": "Half precision, 16 bit",
    "medium": "Medium, 5 to 8 bit",
    "low": "Low, 3 to 4 bit",
    "ultra-low": "Ultra-low, 1 to 2 bit",
}


@dataclass(frozen=True)
class Room:
    """What a conversion may use of this machine, in bytes of disk and of memory."""

    disk: int
    memory: int


@dataclass(frozen=True)
class Cell:
    """One variant of one format of one commit: there, on its way, failed, or missing."""

    variant: Variant
    estimate: Estimate | None
    artefact: Artefact | None = None
    job: Job | None = None
    ticked: bool = False

    @property
    def state(self) -> str:
        if self.artefact is not None:
            return "ready"
        if self.job is None:
            return "missing"
        if self.job.state in ACTIVE:
            return "active"
        return "failed" if self.job.state == JobState.FAILED else "missing"

    @property
    def disk(self) -> int:
        """Bytes of disk that making it alone takes."""
        return prospects.disk_for(0, [[self.estimate]]) if self.estimate else 0


@dataclass(frozen=True)
class Section:
    """One format on the page of a model."""

    format: Format
    state: formats.State
    verdict: Verdict
    cells: list[Cell]
    room: Room

    @property
    def open(self) -> bool:
        """Whether variants can be asked for."""
        return self.state.ready and self.verdict.asked and self.verdict.reason is None

    @property
    def ready(self) -> int:
        return sum(cell.state == "ready" for cell in self.cells)

    @property
    def active(self) -> bool:
        return any(cell.state == "active" for cell in self.cells)

    @property
    def first(self) -> list[Cell]:
        """What is shown at once: all of a few; of many what is there, and what to begin with."""
        if len(self.cells) <= FEW:
            return self.cells
        picks = [_pick(cells) for _, cells in by_class(self.cells)]
        return [
            cell
            for cell in self.cells
            if cell.state != "missing" or cell.variant.pick or cell in picks
        ]

    @property
    def more(self) -> list[Cell]:
        """The rest, folded."""
        first = self.first
        return [cell for cell in self.cells if cell not in first]

    def unfit(self, cell: Cell) -> tuple[str, int, int] | None:
        """Of what a variant needs more than there is with default options: how much, how much."""
        if cell.estimate is None or not self.open:
            return None
        if cell.estimate.memory > self.room.memory:
            return "memory", cell.estimate.memory, self.room.memory
        left = self.room.disk
        return ("disk", cell.disk, left) if cell.disk > left else None


def by_class(cells: Iterable[Cell]) -> list[tuple[str, list[Cell]]]:
    """Cells by the class of their precision, the most exact first."""
    some = list(cells)
    found = [(name, [cell for cell in some if cell.variant.class_ == name]) for name in CLASSES]
    return [(name, cells) for name, cells in found if cells]


def _pick(cells: list[Cell]) -> Cell:
    """The one of a class to begin with: its pick, else the most exact."""
    return max(cells, key=lambda cell: (cell.variant.pick, cell.variant.bits))


def _rough(repo: Repo, variant: Variant) -> Estimate | None:
    """What is known without the plugin: a size."""
    if not repo.parameters:
        return None
    return Estimate(int(repo.parameters * variant.bits / 8), 0, 0, rough=True)


@blueprint.get("/<org>/<name>")
@reads
def show(org: str, name: str) -> str:
    """A repo at a revision (`?revision=`, else main)."""
    return _page(f"{org}/{name}", request.args.get("revision") or "main")


@blueprint.get("/<org>/<name>/convert")
@reads
def form(org: str, name: str) -> Response:
    """The page that the request form is on: where who reloads its answer is led."""
    return redirect(url_for("model.show", org=org, name=name, _anchor="formats"))


@blueprint.post("/<org>/<name>/convert")
@writes
def convert(org: str, name: str) -> Response:
    """Ask for the variants that were ticked, one job for each plugin.

    With `show` nothing is asked for: the answer is the page with what it will take, or with
    `show=part` that piece alone. `partly` leaves out what is refused; else all of it is asked for
    or nothing, and the page comes back with the reasons.
    """
    settings = current_settings()
    repo, revision = f"{org}/{name}", request.form.get("revision") or "main"
    choice = Choice.of_form(request.form)
    shown = request.form.get("show")
    with db.reading(settings.database) as session:
        row = repos.find(session, repo)
        repos.resolve(session, row, revision)
    patience = PATIENCE if shown else SECONDS
    plan = choices.plan(settings, verdicts, repo, revision, choice, patience)
    if row.kind == "derived" and plan.error is not None:
        raise plan.error  # its page has no form to show it on
    if shown == "part":
        return make_response(render_template("_plan.html", plan=plan))
    if shown:
        return make_response(_page(repo, revision, choice, plan))
    wanted = plan.without_refused() if request.form.get("partly") else plan
    if not choice.variants:
        error: HubError | None = InvalidRequest(
            "nothing_chosen", "No variant was chosen.", "Tick at least one."
        )
    else:
        error = wanted.error if wanted.jobs else plan.error
    if error is not None:
        response = make_response(_page(repo, revision, choice, plan, error))
        response.status_code = error.status
        response.headers["Cache-Control"] = "no-store"
        return response
    made = [
        requests.accept(settings, job.prospect.order, job.prospect.sizes)
        for job in wanted.good
        if job.prospect
    ]
    if len(made) == 1:
        return redirect(url_for("jobs.show", job_id=made[0].id), 303)
    numbers = ",".join(str(job.id) for job in made)
    return redirect(url_for("jobs.index", repo=repo, made=numbers), 303)


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


def _page(
    name: str,
    revision: str,
    choice: Choice | None = None,
    plan: Plan | None = None,
    error: HubError | None = None,
) -> str:
    """The page of a repo; with a choice its request form is as it was sent, and the plan on it."""
    settings = current_settings()
    with db.reading(settings.database) as session:
        repo = repos.find(session, name)
        commit = repos.resolve(session, repo, revision)
        files = repos.files(session, commit)
        if repo.kind == "derived":
            artefacts = catalogue.published_in(session, [repo.name])[repo.name]
            jobs, room = {}, Room(0, 0)  # nothing is converted from it
        else:
            artefacts = catalogue.made_from(session, {repo.name: commit.sha})[repo.name]
            jobs = dict(catalogue.latest_jobs(session, repo.name, commit.sha))
            room = Room(space.available(settings, session).left, launch.memory(settings))
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
    choice = choice or Choice()
    return render_template(
        "model.html",
        **common,
        sections=_sections(settings, repo, commit, files, artefacts, jobs, choice, room),
        derived=derived,
        by_class=by_class,
        class_titles=CLASSES,
        choice=choice,
        plan=plan or Plan(),
        error=error,
    )


def _sections(
    settings: Settings,
    repo: Repo,
    commit: Commit,
    files: list[File],
    artefacts: Iterable[Artefact],
    jobs: dict[tuple[str, str], Job],
    choice: Choice,
    room: Room,
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
        verdict = answers.get(fmt.name, Verdict(asked=False))
        cells = [
            Cell(
                variant,
                verdict.estimates.get(variant.name) or _rough(repo, variant),
                there.get((fmt.name, variant.name)),
                jobs.get((fmt.name, variant.name)),
                choice.has(fmt.name, variant.name),
            )
            for variant in fmt.variants
        ]
        sections.append(Section(fmt, states[fmt.name], verdict, cells, room))
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
