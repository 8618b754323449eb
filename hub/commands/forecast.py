"""How commands print what a conversion will take, as the hub's dry run tells it."""

from collections.abc import Iterable, Mapping
from typing import Any

from hub.commands.output import complain, plain, show, table
from hub.sizes import size
from hub.spans import between

COLUMNS = ("variant", "state", "size", "memory", "scratch", "time")


def tell(prospect: dict[str, Any], *, json_: bool) -> None:
    """Print a prospect; exit 1, with the reason on standard error, when it is refused."""
    show(prospect, json_, describe)
    refusal = prospect["refusal"]
    if refusal:
        words = [refusal["detail"], refusal["hint"]]
        message, hint = words if json_ else map(plain, words)
        complain(message, hint, kind=refusal["kind"], json_=json_)
        raise SystemExit(1)


def describe(prospect: Mapping[str, Any]) -> None:
    """Print a prospect for people."""
    table([_row(one) for one in prospect["variants"]], COLUMNS)
    for repo, names in _repos(prospect["variants"]).items():
        print(f"into    {repo}: {', '.join(names)}")
    disk, memory = prospect["disk"], prospect["memory"]
    taken = f", less {size(disk['reserved'])} for other jobs" if disk["reserved"] else ""
    print(f"disk    {size(disk['needed'])} of {size(disk['free'])} that are free{taken}")
    print(f"memory  {size(memory['needed'])} of {size(memory['allowed'])} that may be used")
    print(f"time    {_time(prospect['seconds']) or 'unknown yet'}")
    if not prospect["mirrored"]:
        command = f"slmhub mirror {prospect['repo']}"
        print(f"First it has to be mirrored, {size(prospect['download'])}: `{command}`")
    if prospect["job"] is not None:
        print(f"Job {prospect['job']} is doing this already.")
    elif all(one["state"] == "ready" for one in prospect["variants"]):
        print("All of it is there already.")


def _repos(variants: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The variants by the derived repo they are published in."""
    found: dict[str, list[str]] = {}
    for one in variants:
        found.setdefault(one["repo"], []).append(one["variant"])
    return found


def _row(one: Mapping[str, Any]) -> dict[str, str | None]:
    about, least = ("≈ ", "≥ ") if one["rough"] else ("", "")
    return {
        "variant": one["variant"],
        "state": one["state"],
        "size": _size(one["size"], about),
        "memory": _size(one["memory"], least),
        "scratch": _size(one["scratch"], about),
        "time": _time(one["seconds"]),
    }


def _size(count: int | None, mark: str) -> str | None:
    return None if count is None else f"{mark}{size(count)}"


def _time(seconds: Mapping[str, float] | None) -> str | None:
    return None if seconds is None else between(seconds["least"], seconds["most"])
