"""Figures, times and addresses as people read them: the filters of all pages."""

import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from flask import Blueprint
from markupsafe import Markup

from hub import checks, spans

blueprint = Blueprint("figures", __name__)

_COUNTS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))
_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def _scaled(number: float, scale: tuple[tuple[int, str], ...], unit: str) -> str:
    for factor, suffix in scale:
        # 999,950 would be rounded to 1000 K: from there on it is 1 M.
        if number >= factor * 0.9995:
            value = number / factor
            digits = 2 if value < 10 else 1 if value < 100 else 0
            text = f"{value:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text}\u00a0{suffix}"
    return f"{number:.0f}{unit}"


@blueprint.app_template_filter()
def count(number: float | None) -> str:
    """A number of parameters: 596 M, 1.72 B."""
    return "unknown" if number is None else _scaled(number, _COUNTS, "")


@blueprint.app_template_filter()
def size(number: float | None) -> str:
    """Bytes, in decimal units as download pages use them: 1.19 GB."""
    return "unknown" if number is None else _scaled(number, _SIZES, "\u00a0bytes")


@blueprint.app_template_filter()
def exact(number: int | None) -> str:
    """All digits, in groups."""
    return "unknown" if number is None else f"{number:,}"


@blueprint.app_template_filter()
def context(tokens: int | None) -> str:
    """A context length: 32 K is 32,768 tokens."""
    if tokens is None:
        return "unknown"
    if tokens >= 2**20 and tokens % 2**20 == 0:
        return f"{tokens >> 20}\u00a0M"
    if tokens >= 1024:
        return f"{tokens / 1024:.0f}\u00a0K"
    return str(tokens)


@blueprint.app_template_filter()
def bits(number: float) -> str:
    """Bits per weight, without needless zeros."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


@blueprint.app_template_filter()
def span(seconds: float | None) -> str:
    """A duration: 8 s, 4 min 10 s, 2 h 5 min."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}\u00a0s"
    left = int(seconds)
    if left < 60:
        return f"{left}\u00a0s"
    if left < 3600:
        return f"{left // 60}\u00a0min {left % 60}\u00a0s"
    return f"{left // 3600}\u00a0h {left % 3600 // 60}\u00a0min"


@blueprint.app_template_filter()
def between(seconds: tuple[float, float] | None) -> str:
    """A range of durations, or that none is known."""
    return "unknown yet" if seconds is None else spans.between(*seconds).replace(" ", "\u00a0")


@blueprint.app_template_filter()
def ago(moment: float | None) -> Markup:
    """A moment, relative, with the exact one for machines and on hovering."""
    if moment is None:
        return Markup("")
    past = max(0.0, time.time() - moment)
    words = "just now"
    for length, unit in _SPANS:
        if past >= length:
            words = f"{int(past // length)}\u00a0{unit} ago"
            break
    exactly = datetime.fromtimestamp(moment, UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        exactly.strftime("%Y-%m-%dT%H:%M:%SZ"), exactly.strftime("%Y-%m-%d %H:%M:%S"), words
    )


@blueprint.app_template_filter()
def path(text: str) -> str:
    """A path, quoted to stand in an address."""
    return quote(text, safe="/")


@blueprint.app_template_filter()
def shell(text: str) -> str:
    """One word of a shell command: names come from strangers, commands are pasted."""
    return shlex.quote(text)


@blueprint.app_template_global()
def file_url(repo: str, revision: str, name: str) -> str:
    """Where a file is downloaded from, on this hub."""
    return f"/{quote(repo)}/resolve/{quote(revision, safe='')}/{quote(name)}"


@blueprint.app_template_global()
def check_state(result: Mapping[str, Any]) -> str:
    """Whether an artefact passed its check, failed, was not run here, or has none."""
    return checks.state(result)


@blueprint.app_template_global()
def blob_url(repo: str, revision: str, name: str) -> str:
    """The page of a file."""
    return f"/{quote(repo)}/blob/{quote(revision, safe='')}/{quote(name)}"
