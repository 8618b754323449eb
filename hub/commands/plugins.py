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
@as_json
def plugins_install(name: str, json_: bool) -> None:
    """Build the environment of a plugin."""
    _process("install", name, json_)


@plugins.command(name="check")
@click.argument("name")
@as_json
def plugins_check(name: str, json_: bool) -> None:
    """Test a plugin: manifest, environment, its own test, the sample in every variant."""
    _process("check", name, json_)


def _process(action: str, name: str, json_: bool) -> None:
    argv = [sys.executable, "-m", "workers.plugins", action, name, *(["--json"] if json_ else [])]
    raise SystemExit(subprocess.run(argv, check=False).returncode)
