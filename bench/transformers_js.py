"""Every variant of ONNX in transformers.js, fetched from the hub as its users fetch it.

    python -m bench.transformers_js [--models smollm2-135m …] [--node FOLDER]

Needs Node.js 20 with npm: the package @huggingface/transformers, of the version below, is put into
a folder of its own, or taken from FOLDER. For the sample and models of the zoo: mirrors, converts
all variants, lets transformers.js generate from the hub's address, and compares with what the
plugin's check saw. The hub's data are those of HUB_DATA. The exit code is 1 if one differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from sqlmodel import col, select

from bench.convert import finish, through_hub
from bench.embedded import hub
from hub import db
from hub.client import Client
from hub.config import ROOT, Settings
from hub.formats import Format
from hub.models import Artefact
from hub.sample import sample_folder
from workers import outside

sys.path.append(str(ROOT / "samples"))
import zoo  # type: ignore[import-not-found]

PACKAGE = "@huggingface/transformers@4.3.1"
SCRIPT = Path(__file__).with_name("transformers_js.mjs")
UNKNOWN = {"bitnet-b1.58-2b"}
"""Models of the zoo that transformers.js itself does not know."""
SAMPLE = "sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [SAMPLE, *(name for name in zoo.MODELS if name not in UNKNOWN)]
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="MODEL")
    parser.add_argument("--node", type=Path, help="a folder with the package in node_modules")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        node = arguments.node or _install(work / "node")
        # Modules are looked for beside the script that asks for them.
        script = node / SCRIPT.name
        script.write_bytes(SCRIPT.read_bytes())
        settings = Settings()
        fmt = outside.ready(settings, "onnx")
        with hub(settings.data) as client:
            same = [_compare(client, settings, fmt, work, script, one) for one in arguments.models]
    sys.exit(not all(same))


def _install(folder: Path) -> Path:
    folder.mkdir()
    # Its scripts would fetch what only other processors need.
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def _compare(
    client: Client, settings: Settings, fmt: Format, work: Path, script: Path, name: str
) -> bool:
    """Whether transformers.js says of every variant of a model what its check said."""
    folder = sample_folder() if name == SAMPLE else zoo.write(name, work / name)
    repo = f"bench/{name}"
    finish(client, client.call("POST", "/mirrors", json={"repo": repo, "folder": str(folder)}))
    _, job = through_hub(client, repo, fmt.name, [one.name for one in fmt.variants])
    made = job["artefacts"][0]["repo"]
    with db.reading(settings.database) as session:
        rows = session.exec(select(Artefact).where(col(Artefact.repo) == made)).all()
    checks = {row.variant: row.check_result for row in rows}
    command = ["node", script.name, client.url, made, str(work / f"{name}-cache")]
    command += [json.dumps(checks)]
    done = subprocess.run(
        command, cwd=script.parent, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        print(f"{name}: node ended with {done.returncode}: {done.stderr[-1000:]}")
        return False
    said = json.loads(done.stdout)
    same = True
    for variant, check in checks.items():
        agrees = said[variant] == check["prompt"] + check["text"]
        same &= agrees
        print(f"{name} {variant}: {'the same' if agrees else 'DIFFERS'}: {said[variant]!r:.90}")
    return same


if __name__ == "__main__":
    main()
