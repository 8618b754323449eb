"""Commands that look after the store."""

from dataclasses import asdict

import click

from hub import fsck as check_store
from hub import gc as collector
from hub.commands.output import as_json, show
from hub.config import Settings
from hub.errors import InvalidRequest
from hub.heal import from_upstream
from hub.progress import bar
from hub.sizes import size


@click.command()
@click.option("--subset", metavar="N/T", help="Only part N of T, for a check in several nights.")
@click.option("--heal/--no-heal", default=True, help="Fetch lost files from upstream again.")
@as_json
@click.pass_obj
def fsck(settings: Settings, subset: str | None, heal: bool, json_: bool) -> None:
    """Hash every blob again; set damaged ones aside, fetch them again where that is possible."""
    healer = from_upstream(settings) if heal else None
    with bar("fsck") as report:
        found = check_store.check(
            settings,
            _part(subset),
            healer,
            lambda done, total: report(done / (total or 1), f"{size(done)} of {size(total)}"),
        )
    show(asdict(found) | {"ok": found.ok}, json_, lambda _all: _print_check(found))
    if not found.ok:
        raise SystemExit(1)


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal()):
        raise InvalidRequest("bad_subset", f"{text!r} is not a part.", "Write 1/4, 2/4 …")
    return int(number), int(total)


def _print_check(found: check_store.Report) -> None:
    print(f"{found.blobs} blobs, {size(found.bytes)} hashed.")
    for finding in found.findings:
        state = "fetched again" if finding.healed else "LOST"
        print(f"{finding.sha256}: {finding.problem}, {state}")
        for path in finding.paths:
            print(f"    {path}")
    for row in found.rows:
        print(row)
    if found.ok:
        print("Everything is in order.")
    else:
        print("Lost files of converted models: request the conversion again. Others: mirror again.")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.option("--hours", default=24.0, show_default=True, help="Spare what is younger.")
@as_json
@click.pass_obj
def gc(settings: Settings, dry_run: bool, hours: float, json_: bool) -> None:
    """Remove what nothing names any more."""
    found = collector.collect(settings, hours * 3600, dry_run)
    show(asdict(found), json_, lambda _all: _print_collection(found))


def _print_collection(found: collector.Report) -> None:
    would = "Would remove" if found.dry_run else "Removed"
    print(f"{would} {found.blobs} blobs ({size(found.bytes)}), {found.staged} staged files,")
    print(f"{len(found.partial)} abandoned downloads, {len(found.scratch)} scratch folders,")
    print(f"{len(found.environments)} old environments, {found.quarantined} damaged files.")
