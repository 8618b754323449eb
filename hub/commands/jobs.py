"""Commands that make jobs, follow them and cancel them, through the REST API."""

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from hub.client import FINAL, Client
from hub.commands.flags import PluginCommand, given
from hub.commands.forecast import tell
from hub.commands.output import as_json, complain, plain, show, table
from hub.config import Settings
from hub.errors import InvalidRequest
from hub.models import JobState
from hub.progress import bar
from hub.sizes import size

DRY_RUN = 60
"""Seconds that a hub has to say what a conversion will take: upstream and the plugin are asked."""

wait_option = click.option("--wait", is_flag=True, help="Wait for the end and show the progress.")


@click.command()
@click.argument("repo")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Import a local folder.")
@wait_option
@as_json
@click.pass_obj
def mirror(settings: Settings, repo: str, folder: Path | None, wait: bool, json_: bool) -> None:
    """Mirror ORG/NAME[@REVISION] from upstream, or import it from a folder."""
    name, _, revision = repo.partition("@")
    body = {"repo": name, "revision": revision or "main"}
    if folder is not None:
        body["folder"] = str(folder.resolve())
    with Client(settings) as hub:
        _finish(hub, hub.call("POST", "/mirrors", json=body), wait=wait, json_=json_)


@click.command(cls=PluginCommand)
@click.argument("repo")
@click.argument("plugin")
@click.argument("variants", nargs=-1, required=True)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="K=V",
    help="An option of the plugin, also as --k v.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what it will take; 1 if it is refused.")
@wait_option
@as_json
@click.pass_obj
def convert(
    settings: Settings,
    /,
    repo: str,
    plugin: str,
    variants: tuple[str, ...],
    options: tuple[str, ...],
    dry_run: bool,
    wait: bool,
    json_: bool,
    **flags: object,
) -> None:
    """Convert a mirrored ORG/NAME[@REVISION] with PLUGIN to VARIANTS.

    The options of PLUGIN are flags too: `slmhub convert ORG/NAME PLUGIN --help` shows them.
    """
    name, _, revision = repo.partition("@")
    body = {
        "repo": name,
        "revision": revision or "main",
        "plugin": plugin,
        "variants": list(variants),
        "options": _options(options, given(flags)),
    }
    if dry_run and wait:
        raise click.UsageError("With --dry-run there is nothing to wait for.")
    with Client(settings) as hub:
        if dry_run:
            asking = {"params": {"dry_run": True}, "timeout": DRY_RUN}
            tell(hub.call("POST", "/conversions", json=body, **asking), json_=json_)
            return
        _finish(hub, hub.call("POST", "/conversions", json=body), wait=wait, json_=json_)


def _options(written: Sequence[str], flags: Mapping[str, object]) -> dict[str, object]:
    """The options of the plugin, as --option and as flags; each once."""
    found: dict[str, object] = dict(flags)
    for key, value in map(_option, written):
        if key in found:
            raise InvalidRequest(
                "bad_option", f"The option {key!r} is given twice.", "Give it once."
            )
        found[key] = value
    return found


def _option(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise InvalidRequest(
            "bad_option", f"The option {text!r} has no value.", "Write it as NAME=VALUE."
        )
    return key, value


def _finish(hub: Client, job: dict[str, Any], *, wait: bool, json_: bool) -> None:
    """Follow a job to its end if asked to, then print it; exit 1 when it did not succeed."""
    if wait:
        job = follow(hub, job)
    show(job, json_, describe)
    if json_ and (error := job["error"]):
        complain(error["message"], error["hint"], kind=error["kind"], json_=True)
    if job["state"] in ("failed", "cancelled"):
        raise SystemExit(1)


def follow(hub: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a job under a progress bar; returns the job as it ended."""
    if job["state"] in FINAL:
        return job
    with bar(f"{job['kind']} {job['repo']}") as report:
        while job["state"] not in FINAL:
            queue = f"position {job['position']} in the queue" if job["position"] else ""
            report(job["progress"], job["message"] or queue or job["state"])
            time.sleep(0.3)
            job = hub.call("GET", f"/jobs/{job['id']}")
        report(job["progress"], job["message"] or job["state"])
    return job


def describe(job: dict[str, Any]) -> None:
    """Print a job: its state, its failure with the next step, the files it made."""
    print(f"job {job['id']}: {job['kind']} {job['repo']}: {job['state']}")
    if job["state"] == "queued" and job["position"]:
        print(f"  position {job['position']} in the queue")
    if error := job["error"]:
        print(plain(f"  {error['message']}\n  {error['hint']}"))
    for artefact in job["artefacts"]:
        for file in artefact["files"]:
            print(f"  {artefact['variant']:8} {size(file['size']):>10}  {file['url']}")


@click.group()
def jobs() -> None:
    """Look at jobs and cancel them."""


@jobs.command(name="list")
@click.option(
    "--state",
    type=click.Choice(["active", *map(str, JobState)]),
    help="Only jobs in this state; active: all that have not ended.",
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10000))
@as_json
@click.pass_obj
def jobs_list(settings: Settings, state: str | None, limit: int, json_: bool) -> None:
    """List the newest jobs."""
    with Client(settings) as hub:
        rows = list(islice(hub.items("/jobs", state=state), limit))
    show(rows, json_, lambda all_: table(all_, ["id", "kind", "repo", "state", "message"]))


@jobs.command(name="show")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def jobs_show(settings: Settings, number: int, json_: bool) -> None:
    """Show one job."""
    with Client(settings) as hub:
        show(hub.call("GET", f"/jobs/{number}"), json_, describe)


@jobs.command(name="cancel")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def jobs_cancel(settings: Settings, number: int, json_: bool) -> None:
    """Cancel one job."""
    with Client(settings) as hub:
        show(hub.call("DELETE", f"/jobs/{number}"), json_, describe)


@jobs.command(name="log")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def jobs_log(settings: Settings, number: int, json_: bool) -> None:
    """Print the log of one job."""
    with Client(settings) as hub:
        text = hub.call("GET", f"/jobs/{number}/log")
    show({"id": number, "log": text}, json_, lambda job: print(plain(job["log"]), end=""))
