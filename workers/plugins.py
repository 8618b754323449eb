"""The life of a plugin from the command line: `python -m workers.plugins install|check NAME`.

A process of its own, started by `slmhub plugins`, because the hub does not import the workers.
"""

from dataclasses import asdict

import click

from hub import formats
from hub.cli import edge
from hub.commands.output import as_json, show, table
from hub.config import Settings
from hub.progress import bar
from workers import environments
from workers.trial import trial


@click.group()
@click.pass_context
def cli(context: click.Context) -> None:
    """Build and check the environments of plugins."""
    context.obj = Settings()


@cli.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Build it anew even when it is ready.")
@as_json
@click.pass_obj
def install(settings: Settings, name: str, force: bool, json_: bool) -> None:
    """Build the environment of a plugin."""
    fmt = formats.get(settings, name)
    with bar(f"install {name}") as report:
        environments.install(settings, fmt, lambda line: report(None, line), force=force)
    tools = environments.tool_versions(settings, fmt)
    made = {"name": name, "state": "ready", "tools": tools}
    show(made, json_, lambda _one: print(f"{name} is ready: {_versions(tools)}"))


def _versions(tools: dict[str, str]) -> str:
    return ", ".join(f"{tool} {version}" for tool, version in tools.items()) or "it needs no tools"


@cli.command()
@click.argument("name")
@click.option("--test-only", is_flag=True, help="Only the plugin's own test.")
@as_json
@click.pass_obj
def check(settings: Settings, name: str, test_only: bool, json_: bool) -> None:
    """Test a plugin: manifest, environment, imports, its own test, the sample in every variant."""
    # A broken one too: its first step then says what is wrong.
    fmt = formats.formats(settings).get(name) or formats.get(settings, name)
    steps = []
    with bar(f"check {name}") as report:
        tried = trial(settings, fmt, lambda line: report(None, line), test_only=test_only)
        for step in tried:
            steps.append(step)
            report(None, f"{step.step}: {step.seen}")
    show(
        [asdict(step) | {"ok": step.ok} for step in steps],
        json_,
        lambda rows: table(rows, ["step", "result", "seconds", "seen"]),
    )
    if not all(step.ok for step in steps):
        raise SystemExit(1)


if __name__ == "__main__":
    edge(cli)
