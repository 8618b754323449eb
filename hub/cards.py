"""Model cards of derived repos: the README.md that says what there is, which to pick, how to run.

What came from upstream is not trusted: the YAML header is written by a YAML library, and in the
text every character that Markdown or HTML would act on is escaped. Cards are made anew from the
rows at every commit, so they never lag behind what is there.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub import __version__, checks, commandlines
from hub.config import ROOT, Settings
from hub.formats import Format, source_name
from hub.manifest import Variant
from hub.models import Artefact
from hub.sizes import size

_MARKUP = re.compile(r"([\\`*_\[\]<>#!|~&@$]|:(?=//))")
# What a reader wants to know first of each class, in the words of the guidance on devices.
_PICKS = {
    "low": "Phones, small boards and most laptops",
    "medium": "Computers with memory to spare, where quality counts",
    "half": "As published: graphics processors, or as a reference",
    "full": "Only as a start for further work",
    "ultra-low": "Only where nothing larger fits",
}


def markdown(text: object) -> str:
    """A text as it is, whatever it holds, on one line of Markdown, also inside a table."""
    flat = " ".join(str(text).split())
    return _MARKUP.sub(r"\\\1", "".join(letter for letter in flat if letter.isprintable()))


def code(text: object) -> str:
    """A text as a code span, delimited by more backticks than it has in a row."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    # In a table a bar ends the cell even inside code.
    flat = flat.replace("|", "\\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    space = " " if "`" in flat else ""
    return f"{ticks}{space}{flat}{space}{ticks}" if flat else ""


def fence(text: object) -> str:
    """A text as a block of code, fenced by more backticks than it has in a row."""
    kept = "".join(c for c in str(text) if c.isprintable() or c in "\n\t").strip("\n")
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", kept)), default=0))
    return f"{ticks}\n{kept}\n{ticks}"


_templates = Environment(
    # Not HTML: each value goes through markdown(), code() or fence() in the template.
    autoescape=False,  # noqa: S701
    loader=FileSystemLoader(ROOT / "templates" / "cards"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_templates.filters.update(markdown=markdown, code=code, fence=fence, size=size)


def card(
    settings: Settings, fmt: Format, facts: Mapping[str, Any], rows: Sequence[Artefact]
) -> str:
    """The card of a derived repo that holds these artefacts, as Markdown with a YAML header."""
    source, repo = rows[0].source, rows[0].repo
    variants = {variant.name: variant for variant in fmt.variants}
    return _templates.get_template("derived.md").render(
        header=header(settings, fmt, facts, source),
        fmt=fmt,
        hub=settings.base_url,
        version=__version__,
        repo=repo,
        source=source,
        source_name=source_name(source),
        license=_line(facts.get("license")),
        rows=rows,
        variants=variants,
        picks=_choose(variants, rows),
        commands={row.variant: commandlines.commands(settings.base_url, fmt, row) for row in rows},
        checks={row.variant: checks.line(row.check_result) for row in rows},
        recipes=_recipes(rows),
    )


def header(settings: Settings, fmt: Format, facts: Mapping[str, Any], source: str) -> str:
    """The YAML header, between its two lines of dashes."""
    tags = [fmt.name, "quantized", "slm-hub"]
    if facts.get("has_chat_template"):
        tags.append("conversational")
    data = ModelCardData(
        base_model=source,
        base_model_relation="quantized",
        license=_line(facts.get("license")),
        language=[text for one in facts.get("languages") or [] if (text := _line(one))] or None,
        library_name=fmt.name,
        pipeline_tag=_line(facts.get("pipeline_tag")),
        quantized_by=settings.namespace,
        tags=tags,
    )
    return f"---\n{data.to_yaml()}\n---"


def _line(text: object) -> str | None:
    """An upstream value as one printable line of at most 200 characters; None when it is empty."""
    if not isinstance(text, str):
        return None
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:200] or None


def _choose(
    variants: Mapping[str, Variant], rows: Sequence[Artefact]
) -> list[tuple[str, str, Artefact]]:
    """For each class that is there the one to begin with: its pick, else the most exact."""
    chosen = []
    for name, advice in _PICKS.items():
        some = [row for row in rows if row.variant in variants]
        some = [row for row in some if variants[row.variant].class_ == name]
        if some:
            best = max(some, key=lambda row: _rank(variants[row.variant]))
            chosen.append((name, advice, best))
    return chosen


def _rank(variant: Variant) -> tuple[bool, float]:
    return variant.pick, variant.bits


def _recipes(rows: Sequence[Artefact]) -> list[tuple[list[str], Artefact]]:
    """The variants grouped by how they were made, each group with one of its artefacts."""
    groups: dict[str, tuple[list[str], Artefact]] = {}
    for row in rows:
        made = (row.source_commit, row.plugin_version, row.lock_digest, row.sandbox)
        key = repr((*made, sorted(row.tools.items()), sorted(row.options.items())))
        groups.setdefault(key, ([], row))[0].append(row.variant)
    return list(groups.values())
