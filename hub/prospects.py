"""What a conversion will come to, before anything is downloaded, queued or made.

A request is checked in a second and becomes an Order; weighing the order gives its Prospect: the
size of every variant, the memory, the disk and the time, and the refusal where it cannot be had.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from hub import (
    artefacts,
    asking,
    db,
    durations,
    formats,
    jobs,
    launch,
    mirror,
    outline,
    repos,
    space,
)
from hub.asking import Appraisal, Estimate
from hub.config import Settings
from hub.errors import Conflict, HubError, NoSpace, NotFound, Unavailable, Unprocessable
from hub.formats import Format
from hub.manifest import Value
from hub.models import ACTIVE, Artefact, Commit, File, Job, Repo
from hub.outline import Outline
from hub.patience import Cancelled
from hub.sizes import size
from hub.space import Space

PATIENCE = 20
"""Seconds that upstream has to describe a model which is not mirrored."""
MARGIN = 1.05
"""Free disk asked for, in sizes of what is to be written."""
Appraise = Callable[[Settings, Format, Outline, Sequence[str], Mapping[str, Any]], Appraisal]
"""What asking.appraise is: asks a plugin what these variants of a model cost with some options."""


@dataclass(frozen=True)
class Order:
    """A request that can be understood: what is to be made of which commit, and what is there."""

    fmt: Format
    job: Job
    model: Outline
    made: Mapping[str, Artefact]
    """By variant."""
    making: Mapping[str, Job] = field(default_factory=dict)
    """By variant, the active job that will make it."""
    twin: Job | None = None
    """The active job of the same request."""
    mirrored: bool = True
    download: int = 0
    """Bytes that are to be mirrored first."""

    @property
    def variants(self) -> list[str]:
        names: list[str] = self.job.request["variants"]
        return names

    @property
    def missing(self) -> list[str]:
        return [name for name in self.variants if name not in self.made]

    @property
    def keys(self) -> list[str]:
        """The artefact keys of its variants."""
        return list(self.job.request["keys"].values())


@dataclass(frozen=True)
class Forecast:
    """One variant: there already, or what it will cost."""

    name: str
    repo: str
    artefact: Artefact | None
    estimate: Estimate | None
    seconds: tuple[float, float] | None

    @property
    def size(self) -> int:
        """Bytes of its files, known or estimated."""
        if self.artefact is not None:
            return self.artefact.size
        return self.estimate.size if self.estimate else 0


@dataclass(frozen=True)
class Prospect:
    """What an order will come to, in bytes and seconds. A `refusal` says why it cannot be had."""

    order: Order
    variants: list[Forecast]
    disk: int
    space: Space
    memory: int
    allowed: int
    seconds: tuple[float, float] | None
    refusal: HubError | None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of what this order alone will add, by variant."""
        making = self.order.making
        some = {one.name: one.estimate for one in self.variants if one.name not in making}
        return {name: estimate.size for name, estimate in some.items() if estimate}


def order(
    settings: Settings,
    repo: str,
    revision: str = "main",
    plugin: str = "",
    variants: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
    *,
    ahead: bool = False,
) -> Order:
    """Understand a request; an error names what is wrong with it.

    `ahead`: a repo that is not mirrored is looked at upstream, where only headers are read.
    """
    fmt = formats.get(settings, plugin)
    if not variants:
        raise Unprocessable(
            "no_variant",
            "No variant was asked for.",
            f"Choose among {', '.join(variant.name for variant in fmt.variants)}.",
        )
    names = [fmt.variant(name).name for name in dict.fromkeys(variants)]
    values = fmt.validate_options(options or {})
    try:
        with db.reading(settings.database) as session:
            source, commit, files = _source(session, repo, revision)
            job = _job(fmt, source.name, revision, commit.sha, names, values)
            keys = job.request["keys"]
            made = artefacts.published(session, keys.values())
            making = _making(session, source.name, keys)
            twin = jobs.active(session, job.request_key)
    except NotFound as error:
        if not ahead or error.kind != "repo_not_found":
            raise
        plan = _look(settings, repo, revision)
        job = _job(fmt, plan.repo, revision, plan.sha, names, values)
        download = sum(file.size for file in plan.missing)
        return Order(fmt, job, plan.outline, {}, mirrored=False, download=download)
    there = {name: made[key] for name, key in keys.items() if key in made}
    return Order(fmt, job, outline.of_commit(settings, commit, files), there, making, twin)


def weigh(
    settings: Settings,
    order: Order,
    appraise: Appraise | None = None,
    available: Space | None = None,
) -> Prospect:
    """Ask the plugin what an order will cost, and hold it against what this machine has.

    `appraise` asks in another way than asking.appraise, as one that remembers the answers.
    `available` is the disk that several orders share, if they were looked at together.
    """
    fmt, missing = order.fmt, order.missing
    refusal: HubError | None = None
    appraisal = Appraisal()
    state = formats.state(settings, fmt)
    if not missing:
        pass
    elif state.ready:
        try:
            appraisal = (appraise or asking.appraise)(
                settings, fmt, order.model, missing, order.job.request["options"]
            )
        except HubError as error:
            refusal = error
    else:
        refusal = Conflict(
            "plugin_not_ready",
            f"The plugin {fmt.name} is {state}.",
            f"Run `slmhub plugins install {fmt.name}`, then request it again.",
        )
    if appraisal.reason:
        refusal = Unprocessable(
            "not_supported",
            appraisal.reason,
            f"{fmt.title} cannot convert this model; another format may.",
        )
    estimates = appraisal.estimates
    with db.reading(settings.database) as session:
        known = durations.finished(session, fmt.name)
        available = available or space.available(settings, session, order.keys)
    weights = order.model.weights
    variants = [
        Forecast(
            name,
            formats.derived_repo(fmt, settings, order.job.repo, name),
            order.made.get(name),
            estimates.get(name),
            durations.expected(known, [name], weights) if name in missing else None,
        )
        for name in order.variants
    ]
    needed = disk_for(order.download, [list(estimates.values())])
    memory = max((one.memory for one in estimates.values()), default=0)
    allowed = launch.memory(settings)
    rough = any(one.rough for one in estimates.values())
    refusal = refusal or _too_small(fmt, needed, available, memory, allowed, rough)
    return Prospect(
        order=order,
        variants=variants,
        disk=needed,
        space=available,
        memory=memory,
        allowed=allowed,
        seconds=durations.expected(known, missing, weights),
        # What is on its way already is not asked for again: there is nothing to refuse.
        refusal=refusal if order.twin is None else None,
    )


def together(prospects: Sequence[Prospect]) -> tuple[int, HubError | None]:
    """The disk that several orders of one model need, one made after the other, and the refusal.

    Left out are those that are refused, or on their way already.
    """
    some = [one for one in prospects if one.refusal is None and one.order.twin is None]
    disk = disk_for(
        max((one.order.download for one in some), default=0),
        [[each.estimate for each in one.variants if each.estimate] for one in some],
    )
    least = min((one.space for one in some), key=lambda space: space.left, default=Space(0))
    if len(some) < 2 or disk <= least.left:
        return disk, None
    return disk, NoSpace(
        "disk_too_small",
        f"These {len(some)} jobs together need about {size(disk)} of disk, and {least}.",
        "Ask for fewer variants at once.",
    )


def disk_for(download: int, orders: Sequence[Sequence[Estimate]]) -> int:
    """Bytes of disk: what is fetched, all variants, and the most that lies beside them meanwhile.

    That is, of one order at a time, its largest variant once more and its scratch.
    """
    some = [estimates for estimates in orders if estimates]
    sizes = sum(one.size for estimates in some for one in estimates)
    beside = [
        max(one.size for one in estimates) + max(one.scratch for one in estimates)
        for estimates in some
    ]
    return int((download + sizes + max(beside, default=0)) * MARGIN)


def _too_small(
    fmt: Format, needed: int, space: Space, memory: int, allowed: int, rough: bool
) -> HubError | None:
    if needed > space.left:
        return NoSpace(
            "disk_too_small",
            f"This conversion needs about {size(needed)} of disk, and {space}.",
            "Free some space (`slmhub gc` removes what nothing needs), or ask for fewer variants.",
        )
    if memory > allowed:
        return NoSpace(
            "memory_too_small",
            f"Converting this model with {fmt.title} needs {'at least' if rough else 'about'} "
            f"{size(memory)} of memory, and {size(allowed)} may be used.",
            "Raise HUB_MEMORY_LIMIT, or convert on a machine with more memory.",
        )
    return None


def _source(session: Session, name: str, revision: str) -> tuple[Repo, Commit, list[File]]:
    repo = repos.find(session, name)
    if repo.kind != "mirrored":
        raise Unprocessable(
            "derived_repo",
            f"{name} is a conversion itself.",
            f"Convert what it was made from: {repo.source}.",
        )
    commit = repos.resolve(session, repo, revision)
    return repo, commit, repos.files(session, commit)


def _making(session: Session, repo: str, keys: Mapping[str, str]) -> dict[str, Job]:
    """The active conversions of a repo, by those of the variants that they will make."""
    rows = session.exec(
        select(Job).where(
            col(Job.repo) == repo, col(Job.kind) == "convert", col(Job.state).in_(ACTIVE)
        )
    )
    coming = {key: job for job in rows for key in job.request.get("keys", {}).values()}
    return {name: coming[key] for name, key in keys.items() if key in coming}


def _job(
    fmt: Format, source: str, revision: str, sha: str, names: list[str], values: dict[str, Value]
) -> Job:
    """The row that the request will be."""
    keys: dict[str, Any] = {
        name: artefacts.artefact_key(source, sha, fmt, name, values) for name in names
    }
    return Job(
        kind="convert",
        request_key=jobs.request_key("convert", sorted(keys.values())),
        repo=source,
        revision=revision,
        commit=sha,
        plugin=fmt.name,
        request={"variants": names, "options": values, "keys": keys},
    )


def _look(settings: Settings, repo: str, revision: str) -> mirror.Plan:
    """The plan of mirroring a repo: its configuration and headers, read from upstream."""
    end = time.monotonic() + PATIENCE
    try:
        return mirror.plan(settings, repo, revision, cancelled=lambda: time.monotonic() > end)
    except Cancelled as error:
        raise Unavailable(
            "upstream_slow",
            f"Upstream did not describe {repo} within {PATIENCE} s.",
            "Try again later, or mirror it first: a job has more patience.",
        ) from error
