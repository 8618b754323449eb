"""A conversion: lay the source out, run the plugin, publish each variant as it is finished."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session

from hub import artefacts, db, formats, launch, leases, names, repos
from hub.artefacts import Made, Recipe, Source
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import Conflict, HubError, NotFound
from hub.formats import Format
from hub.joblog import JobLog
from hub.repos import Entry
from hub.sizes import size
from workers import environments, runner
from workers.holding import Cancelled, Holding

log = logging.getLogger(__name__)

# Never laid out, whatever a mirror took: code of the repo, and pickles, which are code too.
_CODE = (".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy")


def run(settings: Settings, held: Holding, folder: Path, joblog: JobLog) -> None:
    """Carry out a conversion in the scratch folder `folder`.

    Variants that are there already, because an earlier attempt published them, are not made again.
    """
    claim = held.claim
    fmt = _plugin(settings, claim.plugin or "", joblog)
    request = claim.request
    options: dict[str, Any] = request["options"]
    with db.reading(settings.database) as session:
        source = read_source(session, claim.repo, claim.commit or "")
        keys = {
            name: artefacts.artefact_key(source.repo, source.commit, fmt, name, options)
            for name in request["variants"]
        }
        there = artefacts.published(session, keys.values())
        earlier = artefacts.made(session, source, fmt)
    if keys != request["keys"]:
        # What it would make now is not what was asked for, nor found again as this job's artefacts.
        raise Conflict(
            "plugin_changed",
            f"The plugin {fmt.name} was changed after this was requested: it is {fmt.version}, "
            f"with the pins {fmt.lock_digest[:16]} now.",
            "Request it again.",
        )
    missing = [name for name in request["variants"] if keys[name] not in there]
    for name in request["variants"]:
        if name not in missing:
            joblog.say(f"{name} is there already")
    if not missing:
        return
    places = {name: folder / name for name in ("source", "output", "work", "earlier")}
    isolation = launch.level(settings)
    # Without walls a converter could change what it reads, and a link would be the blob itself.
    store, links = BlobStore(settings.blobs), isolation == "strict"
    lay_out(store, source.entries, places["source"], links=links)
    places["earlier"].mkdir()
    for variant, entries in earlier.items():
        lay_out(store, entries, places["earlier"] / variant, links=links)
    places["output"].mkdir()
    places["work"].mkdir()
    recipe = Recipe(options, environments.tool_versions(settings, fmt), isolation)
    # What was there before counts as done, so that progress is that of the job, not of the attempt.
    before, count = len(request["variants"]) - len(missing), len(request["variants"])
    finished: list[str] = []

    def on_progress(done: float, message: str) -> None:
        held.report((before + done * len(missing)) / count, message)

    def on_artefact(variant: str, output: Path, check: Mapping[str, Any], seconds: float) -> None:
        held.check()
        leases.publishing(settings, claim)
        made = Made(variant, output, check, seconds)
        artefact = artefacts.publish(settings, claim, fmt, source, recipe, made)
        joblog.say(f"published {variant} as {artefact.repo}@{artefact.commit[:12]}")
        finished.append(variant)
        if len(finished) < len(missing):
            leases.running(settings, claim)

    try:
        outcome = runner.run(
            settings,
            fmt,
            launch.Request(
                action="convert",
                name=fmt.name,
                variants=missing,
                options=options,
                source_name=formats.source_name(source.repo),
                source=places["source"],
                output=places["output"],
                scratch=places["work"],
                earlier=places["earlier"],
            ),
            on_progress=on_progress,
            on_artefact=on_artefact,
            log=joblog,
            cancelled=held.ended,
        )
    except runner.Cancelled as error:
        raise Cancelled from error
    joblog.say(
        f"at most {size(outcome.memory)} of memory and {size(outcome.scratch)} of scratch were used"
    )
    if left := [name for name in missing if name not in finished]:
        raise HubError(
            "no_artefact",
            f"{fmt.title} ended without an error and left nothing for {', '.join(left)}.",
            "This is a fault of the plugin; its log may tell more.",
        )


def _plugin(settings: Settings, name: str, joblog: JobLog) -> Format:
    fmt = formats.get(settings, name)
    state = formats.state(settings, fmt)
    if not state.ready:
        raise Conflict(
            "plugin_not_ready",
            f"The plugin {name} is {state}.",
            f"Run `slmhub plugins install {name}`, then request it again.",
        )
    joblog.say(f"{fmt.name} {fmt.version}, pins {fmt.lock_digest[:16]}")
    return fmt


def read_source(session: Session, repo: str, commit: str) -> Source:
    """A commit with its files and facts."""
    row = repos.resolve(session, repos.find(session, repo), commit)
    entries = [
        Entry(file.path, file.sha256, file.size, file.git_sha1, file.lfs)
        for file in repos.files(session, row)
    ]
    return Source(repo, row.sha, entries, dict(row.facts))


def lay_out(
    store: BlobStore, entries: Sequence[Entry], folder: Path, *, links: bool = True
) -> None:
    """Make a folder of a commit's files, without code and pickles: hard links to the blobs, else
    copies.

    Links cost nothing and need no path into the store; the sandbox mounts them read-only.
    """
    folder.mkdir()
    for entry in entries:
        if entry.path.lower().endswith(_CODE):
            continue
        target = folder / names.check_path(entry.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _place(store.path(entry.sha256), target, links)
        except FileNotFoundError as error:
            raise NotFound(
                "blob_not_found",
                f"The bytes of {entry.path} are not in the store.",
                "Mirror the repo again: only what is missing is fetched.",
            ) from error


def _place(blob: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(blob, target)
        except FileNotFoundError:
            raise
        except OSError as error:
            log.info("copied, not linked: %s", error)  # another file system, or one without links
        else:
            return
    shutil.copyfile(blob, target)
    target.chmod(0o444)
