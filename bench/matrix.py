"""The support matrix as a document, drawn from the results of bench/support.py."""

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from bench.greedy import compare

HEAD = """\
# Which model works with which format

Drawn by `python -m bench.support --results FILE --document docs/support.md`, from what happened and
not from what tools promise. Every row is a tiny model with random weights in the architecture of
the model that it names, made from its published configuration and shrunk only in width, depth,
heads and vocabulary ([samples/zoo.py](../samples/zoo.py)). **yes** means: the plugin's `supports`
took it, one variant of each precision class was converted in the hub's sandbox and ran in its own
runtime, and the unquantized variants say what the source says.

What the source says is its greedy choices in transformers, in float32, after two prompts: one of
12 tokens, and one of 640, which is longer than Gemma's sliding window. An artefact agrees if it
makes the same {count} choices after both, or, where two tokens are nearly as likely as each other,
if no logit on the way is off by more than {full} (full precision) or {half} (half precision)
standard deviations of all logits: half precision rounds, and a random model is less sure than a
trained one.

`supports` is asked before anything is downloaded or queued; it answered every question here in
{slowest:.2f} s or less. A cell where it had said something else than what then happened would have
failed the run.
"""


class Notes:
    """Sentences that cells refer to, each once, in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def refer(self, sentence: str) -> str:
        number = self._numbers.setdefault(sentence, len(self._numbers) + 1)
        return f"[{number}](#notes)"

    def lines(self) -> list[str]:
        return [f"{number}. {sentence}" for sentence, number in self._numbers.items()]


def document(
    results: Mapping[str, Any], zoo: ModuleType, forms: Mapping[str, tuple[str, Any]]
) -> str:
    """The whole of docs/support.md."""
    plugins = {
        name: results["plugins"][name] for name in compare.SCRIPTS if name in results["plugins"]
    }
    cells, bad = results["cells"], results["bad"]
    notes = Notes()
    answers = [cell["seconds"] for row in cells.values() for cell in row.values()]
    answers += [said["seconds"] for row in bad.values() for said in row.values()]
    parts = [HEAD.format(count=compare.COUNT, slowest=max(answers, default=0), **compare.TOLERANCE)]
    parts += ["## The matrix", _table(plugins, _rows(zoo, plugins, cells, notes), "Model")]
    other = {
        form: {name: _cell(cells[name].get(form), notes) for name in plugins} for form in forms
    }
    parts += [
        "## The same model in another form",
        "One variant each; where no model is named, it is Llama 3.2 1B.",
        _table(plugins, other, "Form"),
    ]
    wrong = {
        what: {name: _refusal(bad.get(name, {}).get(what), notes) for name in plugins}
        for what in zoo.BAD
    }
    parts += [
        "## Bad input",
        "What `supports` says of a Llama 3.2 1B that is made bad in one thing. A format that takes"
        " quantized weights has a reader for them; that reader is not tried here.",
        _table(plugins, wrong, "What is wrong"),
    ]
    parts += ["## Notes", "\n".join(notes.lines())]
    parts += ["## What was tried", _tried(plugins, cells, zoo)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _rows(
    zoo: ModuleType, plugins: Mapping[str, Any], cells: Mapping[str, Any], notes: Notes
) -> dict[str, dict[str, str]]:
    return {
        model.published: {name: _cell(cells[name].get(row), notes) for name in plugins}
        for row, model in zoo.MODELS.items()
    }


def _table(plugins: Mapping[str, Any], rows: Mapping[str, Mapping[str, str]], first: str) -> str:
    titles = [plugin["title"] for plugin in plugins.values()]
    lines = ["| " + " | ".join([first, *titles]) + " |", "|---" * (len(titles) + 1) + "|"]
    for row, found in rows.items():
        lines.append("| " + " | ".join([row, *(found[name] for name in plugins)]) + " |")
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any] | None, notes: Notes) -> str:
    """`yes`, or what there is to say, with the numbers of its notes."""
    if cell is None:
        return "not tried"
    if cell["reason"]:
        said = "no " + notes.refer(_sentence(cell["reason"]))
        return said if cell["agrees"] else f"{said} (though it works)"
    failed = [one for one in cell["tries"] if not one["ok"]]
    if failed:
        causes = [notes.refer(_sentence(f"{one['variant']}: {one['error']}")) for one in failed]
        return "no " + " ".join(causes)
    return " ".join(["yes", *(notes.refer(remark) for remark in _remarks(cell))])


def _remarks(cell: Mapping[str, Any]) -> list[str]:
    """What is to be known of a cell that works: variants not run here, and near ties."""
    found = [_sentence(cell["remark"])] if cell["remark"] else []
    for one in cell["tries"]:
        check, agreement = one["check"], one["agreement"]
        if check.get("ran") is False:
            found.append(f"{one['variant']} was made, and {_unrun(check)}")
        if agreement and not agreement["whole"]:
            found.append(_sentence(f"{one['variant']}: {agreement['said']}"))
    return found


def _unrun(check: Mapping[str, Any]) -> str:
    """Why an artefact was not run: the first sentence of what its check says."""
    note = _sentence(check.get("note") or "Not run: it cannot be run on this machine")
    first = note.split(". ")[0].rstrip(".")
    return f"{first[:1].lower()}{first[1:]}; its files were looked through instead."


def _refusal(said: Mapping[str, Any] | None, notes: Notes) -> str:
    if said is None:
        return "not tried"
    return "refused " + notes.refer(_sentence(said["reason"])) if said["reason"] else "taken"


def _sentence(text: str) -> str:
    """Words for one line of a document."""
    text = re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")[:400]
    return text if text.endswith(".") else f"{text}."


def _tried(plugins: Mapping[str, Any], cells: Mapping[str, Any], zoo: ModuleType) -> str:
    """Tools with versions, and the variants of each plugin."""
    lines = ["| Format | Plugin | Tools | Variants |", "|---|---|---|---|"]
    for name, plugin in plugins.items():
        tools = ", ".join(f"{tool} {version}" for tool, version in plugin["tools"].items())
        tried = {
            one["variant"]: one["agreement"] is not None
            for row, cell in cells[name].items()
            if row in zoo.MODELS
            for one in cell["tries"]
        }
        variants = ", ".join(f"**{one}**" if held else one for one, held in tried.items())
        lines.append(f"| {plugin['title']} | {name} {plugin['version']} | {tools} | {variants} |")
    return "\n".join([*lines, "", "Variants in bold were compared with the source."])
