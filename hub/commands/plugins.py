"""Commands about plugins. What runs a plugin's code is a process of the workers."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from hub import adding, formats, scaffold
from hub.adding import Offer
from hub.commands.output import as_json, plain, show, table
from hub.config import Settings
from hub.errors import InvalidRequest
from hub.formats import Format
from hub.sizes import size


@click.group()
def plugins() -> None:
    """Look at plugins, write, add and check them, build their environments."""


@plugins.command(name="list")
@as_json
@click.pass_obj
def plugins_list(settings: Settings, json_: bool) -> None:
    """List the plugins and their states."""
    rows = []
    for fmt in formats.shown(settings):
        state = formats.state(settings, fmt)
        rows.append(
            {
                "name": fmt.name,
                "title": fmt.title,
                "version": fmt.version,
                "state": state.name,
                "reason": state.reason,
                "hint": fmt.remedy,
                "variants": [variant.name for variant in fmt.variants],
            }
        )
    show(rows, json_, _listed)


def _listed(rows: list[dict[str, Any]]) -> None:
    table(rows, ["name", "title", "version", "state", "reason"])
    for row in rows:
        if row["hint"]:
            print(plain(f"{row['name']}: {row['hint']}"))


@plugins.command(name="install")
@click.argument("name")
@click.option("--force", is_flag=True, help="Build it anew even when it is ready.")
@as_json
def plugins_install(name: str, force: bool, json_: bool) -> None:
    """Build the environment of a plugin."""
    arguments = ["install", name, *(["--force"] if force else []), *(["--json"] if json_ else [])]
    raise SystemExit(_process(*arguments))


@plugins.command(name="check")
@click.argument("name")
@click.option("--test-only", is_flag=True, help="Only the plugin's own test.")
@as_json
def plugins_check(name: str, test_only: bool, json_: bool) -> None:
    """Test a plugin: manifest, environment, imports, its own test, the sample in every variant."""
    flags = [*(["--test-only"] if test_only else []), *(["--json"] if json_ else [])]
    raise SystemExit(_process("check", name, *flags))


@plugins.command(name="new")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to write the folder NAME; else where `slmhub plugins add` keeps plugins.",
)
@as_json
@click.pass_obj
def plugins_new(settings: Settings, name: str, folder: Path | None, json_: bool) -> None:
    """Write a working plugin to start from: manifest, converter, test, README."""
    parent = settings.added_plugins if folder is None else folder.expanduser().resolve()
    made = scaffold.write(settings, name, parent)
    steps = [f"slmhub plugins check {name}", f"$EDITOR {shlex.quote(str(made / 'convert.py'))}"]
    if parent not in settings.plugin_folders:
        known = ",".join(map(str, [*settings.plugins, parent]))
        steps.insert(0, f"export HUB_PLUGINS={shlex.quote(known)}")
    show(
        {"name": name, "folder": str(made), "next": steps},
        json_,
        lambda one: print(f"{one['folder']} is a working plugin. Next:", *steps, sep="\n  "),
    )


@plugins.command(name="add")
@click.argument("origin", metavar="FOLDER|ARCHIVE", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask: for scripts.")
@click.option("--replace", is_flag=True, help="Take the place of one that was added before.")
@click.option("--no-install", is_flag=True, help="Do not build its environment.")
@as_json
@click.pass_obj
def plugins_add(
    settings: Settings, origin: Path, yes: bool, replace: bool, no_install: bool, json_: bool
) -> None:
    """Add a plugin from outside, after showing what it is, and build its environment.

    FOLDER or ARCHIVE (.zip, .tar.gz, .tar) holds one plugin. It is copied.
    """
    with adding.offered(settings, origin.expanduser().absolute(), replace=replace) as offer:
        print(plain(_introduction(offer)), file=sys.stderr)
        if not yes:
            _confirm(offer.fmt)
        fmt = adding.put(settings, offer)
    if not json_:
        print(f"{fmt.name} {fmt.version} was added.", flush=True)
    code = 0
    if not no_install and formats.state(settings, fmt).name in ("not installed", "broken"):
        code = _process("install", fmt.name, *(["--json"] if json_ else []), quiet=json_)
    state = formats.state(settings, fmt)
    made = {
        "name": fmt.name,
        "version": fmt.version,
        "replaced": offer.replaces.version if offer.replaces else None,
        "state": state.name,
        "reason": state.reason,
    }
    if json_:
        show(made, json_, lambda _one: None)
    elif code == 0:
        print(f"`slmhub plugins check {fmt.name}` tries it.")
    raise SystemExit(code)


@plugins.command(name="remove")
@click.argument("name")
@as_json
@click.pass_obj
def plugins_remove(settings: Settings, name: str, json_: bool) -> None:
    """Remove a plugin that was added, and its environments; what it made stays."""
    environments = adding.remove(settings, name)
    show(
        {"name": name, "environments": len(environments)},
        json_,
        lambda _one: print(f"{name} was removed. What it made is still there."),
    )


def _introduction(offer: Offer) -> str:
    """What a plugin is and will do, as its manifest says it, for somebody who decides."""
    fmt = offer.fmt
    command = shlex.join(fmt.command) if fmt.command else "convert.py, by Python"
    options = [
        f"{name}: {option.help} ({option.allowed}; else {option.default})"
        for name, option in fmt.options.items()
    ]
    rows = [
        ("runs", [f"{command}, in the sandbox: without network, seeing one model at a time"]),
        ("makes", [fmt.repo, *(f"{one.name}: {one.note}" for one in fmt.variants)]),
        ("options", options or ["none"]),
        ("requires", offer.requirements or ["no packages"]),
        ("platforms", [", ".join(fmt.platforms) or "all"]),
        ("licences", [", ".join(fmt.licenses) or "it names none"]),
        ("holds", [f"{offer.files} files, {size(offer.bytes)}"]),
    ]
    if offer.replaces:
        rows.append(("replaces", _replaced(offer.replaces, fmt)))
    if offer.from_elsewhere:
        rows.append(("beware", ["these are fetched from where it says:", *offer.from_elsewhere]))
    lines = [f"{fmt.name} {fmt.version}: {fmt.title} ({fmt.runtime})", f"  {fmt.summary}"]
    for label, texts in rows:
        lines += [f"  {label if not i else '':10} {text}" for i, text in enumerate(texts)]
    return "\n".join(lines)


def _replaced(earlier: Format, fmt: Format) -> list[str]:
    if earlier.version != fmt.version or earlier.lock_digest != fmt.lock_digest:
        return [f"{earlier.name} {earlier.version}"]
    return [f"{earlier.name} {earlier.version}, of the same version: what that made counts as made"]


def _confirm(fmt: Format) -> None:
    """Ask; InvalidRequest where nobody can answer."""
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "not_confirmed",
            "Nothing was added: there is no terminal to ask at.",
            "Read what is shown above, then repeat the command with --yes.",
        )
    words = "install what it requires and let it convert models"
    if not click.confirm(f"Add {fmt.name}, {words}?", err=True):
        raise InvalidRequest("not_confirmed", "Nothing was added.", "")


def _process(*arguments: str, quiet: bool = False) -> int:
    """Run a command of the workers to its end; its exit code."""
    # -P: a folder called hub or workers in the caller's folder is not the hub's code.
    argv = [sys.executable, "-P", "-m", "workers.plugins", *arguments]
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run(argv, stdout=out, check=False).returncode
