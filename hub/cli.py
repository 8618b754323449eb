"""The command line, `slmhub`: one group of commands, and the edge where their failures end."""

import logging
import sys
import uuid

import click
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, DBAPIError

from hub import __version__
from hub.commands import jobs, plugins, run, store, tokens
from hub.commands.output import complain
from hub.config import Settings
from hub.errors import HubError

log = logging.getLogger(__name__)


@click.group()
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Mirror small language models, convert them, serve them.

    Settings are environment variables with the prefix HUB_ (docs/operating.md).
    """
    context.obj = Settings()


for command in (
    run.up_,
    run.serve,
    run.worker,
    run.migrate,
    jobs.mirror,
    jobs.convert,
    jobs.jobs,
    plugins.plugins,
    tokens.token,
    store.fsck,
    store.gc,
):
    cli.add_command(command)


def main() -> None:
    """Run `slmhub`."""
    edge(cli)


def edge(commands: click.Group) -> None:
    """Run a command; every failure is a sentence, a next step and an exit code that is not 0."""
    json_ = "--json" in sys.argv
    try:
        commands(standalone_mode=False)
    except click.exceptions.Exit as error:
        raise SystemExit(error.exit_code) from None
    except click.ClickException as error:
        if json_:
            complain(error.format_message(), _usage(error), kind="usage", json_=True)
        else:
            error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except ValidationError as error:
        if error.title != Settings.__name__:  # something else was validated: our mistake
            _unexpected(json_)
            raise SystemExit(1) from None
        for problem in error.errors():
            name = "HUB_" + str(problem["loc"][0]).upper()
            message = f"The setting {name} is wrong: {problem['msg']}."
            complain(message, "docs/operating.md lists the settings.", kind="setting", json_=json_)
        raise SystemExit(1) from None
    except HubError as error:
        complain(error.message, error.hint, kind=error.kind, json_=json_)
        raise SystemExit(1) from None
    except (ArgumentError, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        complain(
            f"The database cannot be used: {str(cause).splitlines()[0]}.",
            "Is HUB_DATA or HUB_DATABASE_URL right? `slmhub migrate` makes a new one's tables.",
            kind="database_away",
            json_=json_,
        )
        raise SystemExit(1) from None
    except Exception:  # noqa: BLE001 - the edge; it is logged there
        _unexpected(json_)
        raise SystemExit(1) from None


def _unexpected(json_: bool) -> None:
    """Log the failure that is being handled, and show the number it is found under."""
    number = uuid.uuid4().hex[:8]
    log.exception("error %s", number)
    complain(f"Something went wrong inside the hub (error {number}).", "", json_=json_)


def _usage(error: click.ClickException) -> str:
    """Where to read how a command is written."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"Try `{context.command_path} --help`." if context else ""


if __name__ == "__main__":
    main()
