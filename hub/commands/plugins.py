"""Commands about plugins. What runs a plugin's code is a process of the workers."""

import subprocess
import sys

import click

from hub import formats
from hub.commands.output import as_json, show, table
from hub.config import Settings


@click.group()
def plugins() -> None:
    """Look at plugins and build their environments."""


@plugins.command(name="list")
@as_json
@click.pass_obj
def plugins_list(settings: Settings, json_: bool) -> None:
    """List the plugins and their states."""
    rows = []
    for name, found in sorted(formats.formats(settings).items()):
        state = formats.state(settings, found)
        rows.append(
            {
                "name": name,
                "title": found.title,
                "version": found.version,
                "state": state.name,
                "reason": state.reason,
                "variants": [variant.name for variant in found.variants],
            }
        )
    show(rows, json_, lambda all_: table(all_, ["name", "title", "version", "state", "reason"]))


@plugins.command(name="install")
@click.argument("name")
@click.option("--force", is_flag=True, help="Build it anew even when it is ready.")
@as_json
def plugins_install(name: str, force: bool, json_: bool) -> None:
    """Build the environment of a plugin."""
    _process("install", name, *(["--force"] if force else []), *(["--json"] if json_ else []))


@plugins.command(name="check")
@click.argument("name")
@as_json
def plugins_check(name: str, json_: bool) -> None:
    """Test a plugin: manifest, environment, its own test, the sample in every variant."""
    _process("check", name, *(["--json"] if json_ else []))


def _process(*arguments: str) -> None:
    # -P: a folder called hub or workers in the caller's folder is not the hub's code.
    argv = [sys.executable, "-P", "-m", "workers.plugins", *arguments]
    raise SystemExit(subprocess.run(argv, check=False).returncode)
