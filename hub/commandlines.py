"""The commands that fetch and run an artefact, as its page and its card show them.

They are pasted into a shell, and the names in them come from strangers: every value is quoted.
"""

import shlex
from dataclasses import dataclass
from urllib.parse import quote

from hub.formats import Format
from hub.models import Artefact


@dataclass(frozen=True)
class Command:
    """A way to use an artefact, ready to be pasted."""

    title: str
    text: str


def commands(base_url: str, fmt: Format | None, artefact: Artefact) -> list[Command]:
    """How to fetch an artefact into the folder one is in, and then, with its format, to run it."""
    paths = [str(file["path"]) for file in artefact.files]
    if not paths:
        return []
    hub, repo, file = shlex.quote(base_url), shlex.quote(artefact.repo), shlex.quote(paths[0])
    url = shlex.quote(f"{base_url}/{quote(artefact.repo)}/resolve/main/{quote(paths[0])}")
    made = []
    if len(paths) == 1:
        # The last part of the address is the file's name, unless that had to be encoded.
        plain = "/" not in paths[0] and quote(paths[0]) == paths[0]
        save = f"-LO {url}" if plain else f"-L --create-dirs -o {file} {url}"
        made.append(Command("curl", f"curl {save}"))
    files = " ".join(map(shlex.quote, paths))
    made.append(
        Command(
            "Hugging Face client",
            f"HF_ENDPOINT={hub} hf download {repo} {files} --local-dir .",
        )
    )
    for run in fmt.run if fmt else []:
        text = run.fill(
            repo=repo, variant=shlex.quote(artefact.variant), file=file, hub=hub, url=url
        )
        made.append(Command(run.title, text))
    return made
