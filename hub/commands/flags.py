"""The options of a plugin as flags of a command: from its manifest, as the hub at hand tells it."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from hub.client import Client
from hub.errors import Unavailable, Unprocessable
from hub.manifest import Option

_META = "hub.commands.flags"
_PREFIX = "flag_"


class PluginCommand(click.Command):
    """A command with the arguments REPO PLUGIN …, which takes that plugin's options as flags too.

    The hub is asked for them only when there is a flag that the command itself has not, or help
    is wanted after a plugin's name. Values go to the hub as they were written: it knows what they
    may be.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the plugin among the arguments, then read them with its flags."""
        if not ctx.resilient_parsing:
            plugin, asks = self._look(ctx, args)
            if plugin and asks:
                try:
                    ctx.meta[_META] = self._declared(ctx, plugin)
                except Unavailable:
                    # Help is given without a hub too: that of the command itself.
                    if not {*args} & {*ctx.help_option_names}:
                        raise
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and the flags of the plugin that was named."""
        return [*super().get_params(ctx), *ctx.meta.get(_META, [])]

    def _look(self, ctx: click.Context, args: Sequence[str]) -> tuple[str | None, bool]:
        """The plugin that is named, and whether its flags are needed to read the arguments."""
        own = self._own(ctx)
        named: list[str] = []
        asks = False
        words = iter(args)
        for word in words:
            flag = word.partition("=")[0]
            if word == "--":
                break
            if not flag.startswith("--"):
                named.append(word)
            elif flag not in own:
                if len(named) < 2:
                    raise click.UsageError(
                        f"Write REPO and PLUGIN before {flag}: it is no option of this command"
                        " itself.",
                        ctx,
                    )
                asks = True
            elif flag in ctx.help_option_names:
                asks = True
            elif not own[flag] and "=" not in word:
                next(words, None)  # its value
        return (named[1] if len(named) > 1 else None), asks

    def _own(self, ctx: click.Context) -> dict[str, bool]:
        """The command's own flags, and whether each stands alone, without a value."""
        own = {
            flag: param.is_flag
            for param in self.params
            if isinstance(param, click.Option)
            for flag in param.opts
        }
        return own | dict.fromkeys(ctx.help_option_names, True)

    def _declared(self, ctx: click.Context, plugin: str) -> list[click.Option]:
        with Client(ctx.obj) as hub:
            known: dict[str, Any] = {}
            for one in hub.items("/plugins"):
                known.setdefault(one["name"], one)  # of one name the first is the one in use
        if plugin not in known:
            raise Unprocessable(
                "unknown_plugin",
                f"There is no plugin {plugin[:80]!r}.",
                f"Known are {', '.join(known)}.",
            )
        found = [flag for one in known[plugin]["options"].items() if (flag := _flag(*one))]
        own = self._own(ctx)
        return [flag for flag in found if not own.keys() & {*flag.opts, *flag.secondary_opts}]


def given(flags: Mapping[str, Any]) -> dict[str, object]:
    """The options of the plugin that were given as flags, by their names in the manifest."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in flags.items()
        if name.startswith(_PREFIX) and value is not None
    }


def _flag(name: str, document: Mapping[str, Any]) -> click.Option:
    option = Option.model_validate(document)
    word = name.replace("_", "-")
    if option.type == "boolean":
        return click.Option(
            [f"{_PREFIX}{name}", f"--{word}/--no-{word}"],
            default=None,
            help=f"{option.help} (else {str(option.default).lower()})",
        )
    return click.Option(
        [f"{_PREFIX}{name}", f"--{word}"],
        metavar=option.type.upper(),
        help=f"{option.help} ({option.allowed}; else {option.default})",
    )
