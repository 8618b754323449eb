"""The commands that fetch and run an artefact, ready to be pasted into a shell."""

from dataclasses import dataclass

from hub.formats import Format
from hub.models import Artefact
from hub.views.figures import file_url, shell


@dataclass(frozen=True)
class Command:
    """A way to use an artefact, ready to be pasted."""

    title: str
    text: str


def commands(settings_url: str, fmt: Format | None, artefact: Artefact) -> list[Command]:
    """How to fetch and run an artefact. Names are quoted: they come from strangers."""
    made = []
    paths = [str(file["path"]) for file in artefact.files]
    url = settings_url + file_url(artefact.repo, "main", paths[0])
    if len(paths) == 1:
        made.append(Command("curl", f"curl -L -O {shell(url)}"))
    made.append(
        Command(
            "Hugging Face client",
            f"HF_ENDPOINT={shell(settings_url)} hf download {shell(artefact.repo)} "
            # Into this folder, where the commands after it look for the file.
            + " ".join([*map(shell, paths), "--local-dir ."]),
        )
    )
    for run in fmt.run if fmt else []:
        text = run.fill(
            repo=shell(artefact.repo),
            variant=shell(artefact.variant),
            file=shell(paths[0].rpartition("/")[2]),
            hub=shell(settings_url),
            url=shell(url),
        )
        made.append(Command(run.title, text))
    return made
