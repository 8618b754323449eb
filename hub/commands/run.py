"""Commands that run the hub or its parts."""

import os
import sys

import click

from hub import db, security, up
from hub.config import Settings
from hub.sample import first_conversion


@click.command(name="up")
@click.option("--sample", is_flag=True, help="Convert the sample model to GGUF first.")
@click.pass_obj
def up_(settings: Settings, sample: bool) -> None:
    """Run the whole hub on this machine: web server, worker, private Redis, SQLite."""
    try:
        with up.running(settings) as keep:
            print(f"SLM Hub is at {settings.base_url} (data in {settings.data})", flush=True)
            if sample:
                first_conversion(settings)
            print("Ctrl-C stops it.", flush=True)
            keep()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)


@click.command()
@click.pass_obj
def serve(settings: Settings) -> None:
    """Run the web server alone."""
    security.check_settings(settings)
    argv = [sys.executable, "-P", "-m", "gunicorn", "--config", "python:hub.gunicorn"]
    os.execv(sys.executable, [*argv, "hub.app:create_app()"])  # noqa: S606


@click.command()
def worker() -> None:
    """Run a worker alone."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers"])  # noqa: S606


@click.command()
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Make the data folder, and bring the database to the newest schema."""
    settings.data.mkdir(parents=True, exist_ok=True)
    db.migrate(settings.database)
