"""What was ticked on the request form, and what it comes to: one job for each format.

Either all of it is asked for or nothing: what one format refuses does not silently lose the others.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import MultiDict

from hub import db, formats, prospects, space
from hub.asking import Appraisal
from hub.config import Settings
from hub.errors import HubError, Unavailable
from hub.formats import Format
from hub.outline import Outline
from hub.prospects import Order, Prospect
from hub.space import Space
from hub.views.verdicts import Verdicts

LONGEST = 64
"""Formats of a request."""


@dataclass(frozen=True)
class Choice:
    """The ticked variants and the options of each plugin, by its name, as the form sent them."""

    variants: Mapping[str, list[str]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of_form(cls, form: MultiDict[str, str]) -> "Choice":
        """`variant` is plugin:name; `only` is a single one, from the button beside it.

        Options are `option:plugin:name`; empty fields take the default.
        """
        variants: dict[str, list[str]] = {}
        for item in [form["only"]] if "only" in form else form.getlist("variant"):
            plugin, _, variant = item.partition(":")
            variants.setdefault(plugin, []).append(variant)
        options: dict[str, dict[str, str]] = {}
        for key in form:
            kind, _, rest = key.partition(":")
            plugin, _, name = rest.partition(":")
            # The last one: before a box there is a hidden field with what it is when unticked.
            if kind == "option" and (value := form.getlist(key)[-1]) != "":
                options.setdefault(plugin, {})[name] = value
        return cls(dict(list(variants.items())[:LONGEST]), options)

    def has(self, plugin: str, variant: str) -> bool:
        """Whether a variant is ticked."""
        return variant in self.variants.get(plugin, ())

    def value(self, plugin: str, name: str, default: object) -> str:
        """What an option is set to, as a form shows it."""
        given = self.options.get(plugin, {}).get(name)
        if given is not None:
            return given
        return str(default).lower() if isinstance(default, bool) else str(default)

    def touched(self, fmt: Format) -> bool:
        """Whether an option of a plugin is set to something else than its default."""
        untouched = Choice()
        return any(
            self.value(fmt.name, name, option.default)
            != untouched.value(fmt.name, name, option.default)
            for name, option in fmt.options.items()
        )


@dataclass(frozen=True)
class Planned:
    """The job that the ticks of one format will be; without a prospect it is refused, or late."""

    title: str
    variants: list[str]
    prospect: Prospect | None = None
    refusal: HubError | None = None

    @property
    def asking(self) -> bool:
        """Whether the plugin has not answered yet."""
        return self.prospect is None and self.refusal is None

    @property
    def state(self) -> str:
        """What will come of it: new, active, ready, refused or asking."""
        if self.refusal is not None:
            return "refused"
        if self.prospect is None:
            return "asking"
        if self.prospect.order.twin is not None:
            return "active"
        return "new" if self.prospect.order.missing else "ready"

    @property
    def repos(self) -> dict[str, list[str]]:
        """The variants by the derived repo that they are published in."""
        found: dict[str, list[str]] = {}
        for one in self.prospect.variants if self.prospect else ():
            found.setdefault(one.repo, []).append(one.name)
        return found

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(one.size for one in self.prospect.variants) if self.prospect else 0

    @property
    def rough(self) -> bool:
        some = self.prospect.variants if self.prospect else ()
        return any(one.estimate.rough for one in some if one.estimate)


@dataclass(frozen=True)
class Plan:
    """The jobs that a choice will be. `refusal`: each of them fits, but not all together."""

    jobs: list[Planned] = field(default_factory=list)
    disk: int = 0
    refusal: HubError | None = None

    @property
    def asking(self) -> bool:
        return any(job.asking for job in self.jobs)

    @property
    def refused(self) -> list[Planned]:
        return [job for job in self.jobs if job.refusal is not None]

    @property
    def good(self) -> list[Planned]:
        """What can be asked for."""
        return [job for job in self.jobs if job.prospect is not None and job.refusal is None]

    @property
    def size(self) -> int:
        return sum(job.size for job in self.good)

    @property
    def variants(self) -> int:
        return sum(len(job.variants) for job in self.jobs)

    @property
    def memory(self) -> int:
        return max((job.prospect.memory for job in self.good if job.prospect), default=0)

    @property
    def space(self) -> Space:
        """The disk, which all of them were held against."""
        return next((job.prospect.space for job in self.good if job.prospect), Space(0))

    @property
    def allowed(self) -> int:
        return min((job.prospect.allowed for job in self.good if job.prospect), default=0)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Of all new jobs, one after the other; None where one of them is unknown."""
        new = [job.prospect for job in self.good if job.prospect and job.state == "new"]
        known = [one.seconds for one in new if one.seconds is not None]
        if not new or len(known) < len(new):
            return None
        return sum(least for least, _ in known), sum(most for _, most in known)

    @property
    def error(self) -> HubError | None:
        """Why not all of it can be asked for as it is."""
        if refused := self.refused:
            return refused[0].refusal
        if self.refusal is not None:
            return self.refusal
        late = [job.title for job in self.jobs if job.asking]
        if late:
            return Unavailable(
                "plugin_slow",
                f"{', '.join(late)} did not say yet what it will take.",
                "Ask again in a moment.",
            )
        return None

    def without_refused(self) -> "Plan":
        """The rest of it."""
        return _together([job for job in self.jobs if job.refusal is None])


def plan(
    settings: Settings,
    verdicts: Verdicts,
    repo: str,
    revision: str,
    choice: Choice,
    patience: float,
) -> Plan:
    """What a choice comes to; plugins that say nothing for `patience` seconds are left asking."""
    jobs: list[Planned | tuple[Order, Future[Appraisal]]] = []
    known = formats.formats(settings)
    titles = {name: known[name].title if name in known else name[:80] for name in choice.variants}
    for plugin, variants in choice.variants.items():
        options = choice.options.get(plugin, {})
        try:
            order = prospects.order(settings, repo, revision, plugin, variants, options)
        except HubError as error:
            jobs.append(Planned(titles[plugin], variants, refusal=error))
            continue
        jobs.append((order, _ask(settings, verdicts, order)))
    end = time.monotonic() + patience
    wanted = {key for job in jobs if not isinstance(job, Planned) for key in job[0].keys}
    with db.reading(settings.database) as session:
        disk = space.available(settings, session, wanted)
    return _together(
        [
            job
            if isinstance(job, Planned)
            else _weigh(settings, titles[job[0].fmt.name], *job, end, disk)
            for job in jobs
        ]
    )


def _ask(settings: Settings, verdicts: Verdicts, order: Order) -> Future[Appraisal]:
    if not order.missing or not formats.state(settings, order.fmt).ready:
        nobody: Future[Appraisal] = Future()
        nobody.set_result(Appraisal())
        return nobody
    sha = order.job.commit or ""
    options = order.job.request["options"]
    return verdicts.ask(settings, order.fmt, sha, lambda: order.model, options)


def _weigh(
    settings: Settings,
    title: str,
    order: Order,
    answer: Future[Appraisal],
    end: float,
    disk: Space,
) -> Planned:
    def appraise(
        _settings: Settings,
        _fmt: Format,
        _model: Outline,
        variants: Sequence[str],
        _options: Mapping[str, Any],
    ) -> Appraisal:
        said = answer.result(timeout=max(0.0, end - time.monotonic()))
        some = {name: said.estimates[name] for name in variants if name in said.estimates}
        return Appraisal(said.reason, some)

    try:
        found = prospects.weigh(settings, order, appraise, disk)
    except Late:
        return Planned(title, order.variants)
    return Planned(title, order.variants, found, found.refusal)


def _together(jobs: list[Planned]) -> Plan:
    disk, refusal = prospects.together([job.prospect for job in jobs if job.prospect])
    return Plan(jobs, disk, refusal)
