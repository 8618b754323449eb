"""Requests: what is asked for is checked in a second, and becomes a job.

Whatever can be known beforehand is refused here, with the reason: an unknown variant, a plugin that
is not ready, a model its plugin cannot convert, a disk or a memory that is too small.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from hub import artefacts, asking, db, formats, jobs, launch, repos
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import Conflict, InvalidRequest, NoSpace, NotFound, Unprocessable
from hub.formats import Format
from hub.local import readable
from hub.models import Commit, File, Job, JobState, Repo
from hub.names import check_foreign, check_name, check_revision
from hub.sizes import size

MiB = 1024**2
CONFIG_LIMIT = 4 * MiB
BASE_MEMORY = 256 * MiB


def request_mirror(
    settings: Settings, repo: str, revision: str = "main", folder: Path | None = None
) -> Job:
    """Queue the mirroring of a repo at a revision, from upstream or from a local folder.

    The same request returns the job that is on its way already. One that has ended is no obstacle:
    upstream may have moved.
    """
    if "/" not in repo:
        raise InvalidRequest(
            "bad_repo_name",
            f"{repo[:80]!r} has no organisation.",
            "Write org/name; old models without one have moved: gpt2 is openai-community/gpt2.",
        )
    check_name(repo)
    check_revision(revision)
    check_foreign(repo, settings.namespace)
    if folder is not None and not (folder.is_absolute() and readable(folder)):
        raise Unprocessable(
            "no_such_folder",
            f"There is no folder {str(folder)[:200]!r} on the hub's machine that it may read.",
            "Give the absolute path of a folder that holds a model.",
        )
    origin = str(folder) if folder is not None else settings.upstream_url
    return jobs.submit(
        settings,
        Job(
            kind="mirror",
            request_key=jobs.request_key("mirror", origin, repo, revision),
            repo=repo,
            revision=revision,
            request={"folder": str(folder)} if folder is not None else {},
        ),
    )


def request_conversion(
    settings: Settings,
    repo: str,
    revision: str = "main",
    plugin: str = "",
    variants: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> Job:
    """Queue a conversion; the same request returns the same job, or a done one at once."""
    fmt = formats.get(settings, plugin)
    if not variants:
        raise Unprocessable(
            "no_variant",
            "No variant was asked for.",
            f"Choose among {', '.join(variant.name for variant in fmt.variants)}.",
        )
    names = [fmt.variant(name).name for name in dict.fromkeys(variants)]
    values = fmt.validate_options(options or {})
    with db.reading(settings.database) as session:
        source, commit, files = _source(session, repo, revision)
        keys = {
            name: artefacts.artefact_key(source.name, commit.sha, fmt, name, values)
            for name in names
        }
        job = Job(
            kind="convert",
            request_key=jobs.request_key("convert", sorted(keys.values())),
            repo=source.name,
            revision=revision,
            commit=commit.sha,
            plugin=fmt.name,
            request={"variants": names, "options": values, "keys": keys},
        )
        if twin := jobs.active(session, job.request_key):
            return twin
        made = artefacts.published(session, keys.values())
        facts = dict(commit.facts)
    missing = [name for name in names if keys[name] not in made]
    if not missing:
        return _already_done(settings, job)
    _check_ready(settings, fmt)
    about = config(settings, files)
    _check_space(settings, fmt, missing, facts, files)
    _check_memory(settings, fmt, facts, about)
    if reason := asking.supports(settings, fmt, about, [file.path for file in files]):
        raise Unprocessable(
            "not_supported",
            reason,
            f"{fmt.title} cannot convert this model; another format may.",
        )
    return jobs.submit(settings, job)


def again(settings: Settings, job_id: int) -> Job:
    """Request once more what a job was for."""
    with db.reading(settings.database) as session:
        job = jobs.get(session, job_id)
    if job.kind == "mirror":
        folder = job.request.get("folder")
        return request_mirror(settings, job.repo, job.revision, Path(folder) if folder else None)
    return request_conversion(
        settings,
        job.repo,
        job.revision,
        job.plugin or "",
        job.request["variants"],
        job.request["options"],
    )


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


def _already_done(settings: Settings, job: Job) -> Job:
    """The done job of this request; where none is known, one is written down now."""
    with db.writing(settings.database) as session:
        earlier = session.exec(
            select(Job)
            .where(col(Job.request_key) == job.request_key, col(Job.state) == JobState.DONE)
            .order_by(col(Job.id).desc())
            .limit(1)
        ).one_or_none()
        if earlier is not None:
            return earlier
        now = time.time()
        job.state = JobState.DONE
        job.progress = 1.0
        job.started_at = job.finished_at = now
        session.add(job)
    return job


def _check_ready(settings: Settings, fmt: Format) -> None:
    state = formats.state(settings, fmt)
    if not state.ready:
        raise Conflict(
            "plugin_not_ready",
            f"The plugin {fmt.name} is {state}.",
            f"Run `slmhub plugins install {fmt.name}`, then request it again.",
        )


def config(settings: Settings, files: list[File]) -> dict[str, Any]:
    """The model's config.json, as data; empty where there is none that can be read."""
    for file in files:
        if file.path == "config.json" and file.size <= CONFIG_LIMIT:
            try:
                with BlobStore(settings.blobs).open(file.sha256) as blob:
                    found = json.load(blob)
            except (ValueError, RecursionError, NotFound):
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _check_space(
    settings: Settings,
    fmt: Format,
    variants: list[str],
    facts: Mapping[str, Any],
    files: list[File],
) -> None:
    """Refuse what the disk cannot hold: a base file, all variants, and one of them once more."""
    parameters = facts.get("parameters") or 0
    weights = sum(file.size for file in files if file.path.endswith(".safetensors"))
    sizes = [int(parameters * fmt.variant(name).bits / 8) for name in variants]
    needed = int((weights + sum(sizes) + max(sizes)) * 1.05)
    free = shutil.disk_usage(settings.data).free
    if needed > free:
        raise NoSpace(
            "disk_too_small",
            f"This conversion needs about {size(needed)} of disk, and {size(free)} are free.",
            "Free some space (`slmhub gc` removes what nothing needs), or ask for fewer variants.",
        )


def _check_memory(
    settings: Settings, fmt: Format, facts: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Refuse what cannot fit: every converter holds the largest tensor in full precision."""
    width, rows = config.get("hidden_size"), facts.get("vocabulary")
    known = isinstance(width, int) and isinstance(rows, int)
    largest = 4 * width * rows if known else 0  # type: ignore[operator]
    needed = BASE_MEMORY + int(1.5 * min(largest, 4 * (facts.get("parameters") or 0)))
    allowed = launch.memory(settings)
    if needed > allowed:
        raise NoSpace(
            "memory_too_small",
            f"Converting this model with {fmt.title} needs at least {size(needed)} of memory, "
            f"and {size(allowed)} may be used.",
            "Raise HUB_MEMORY_LIMIT, or convert on a machine with more memory.",
        )
