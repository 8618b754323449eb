"""The tutorial of docs/plugins.md, followed to the letter outside of the tree, from its text."""

import os
import pty
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from embedded import Embedded

from hub import formats
from hub.config import ROOT, Settings
from workers.environments import PIP_FOR_UV

DOCUMENT = (ROOT / "docs" / "plugins.md").read_text()
TUTORIAL = DOCUMENT[DOCUMENT.index("## From nothing") : DOCUMENT.index("## The functions")]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
PATIENCE = 600
"""Seconds that a command of the text may take: some install packages."""
FILE = re.compile(r"(?:# |<!-- )(at the end of )?(\S+)(?: -->)?\n")

# Run by the Python of the plugin, which has the packages to read what it wrote.
PROOF = """
import json, sys
from pathlib import Path
import ml_dtypes, numpy as np
from safetensors import deserialize, safe_open

TYPES = {"F16": np.float16, "F32": np.float32, "F8_E4M3": ml_dtypes.float8_e4m3fn}
source, half, quarter = map(Path, sys.argv[1:])
with safe_open(source / "model.safetensors", "numpy") as file:
    weights = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}

def read(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        held = {name: np.frombuffer(one["data"], TYPES[one["dtype"]]).reshape(one["shape"])
                for name, one in deserialize(content)}
        assert len(held) == 1 or len(content) < 1_010_000, path
        assert all(index.pop(name) == path.name for name in held)
        found |= held
    assert not index
    assert json.loads((folder / "config.json").read_bytes())["dtype"] == "float16"
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    return found, len(list(folder.glob("*.safetensors")))

made, files = read(half)
assert files > 4, files
assert made.keys() == weights.keys()
for name, values in weights.items():
    assert made[name].dtype == np.float16
    assert np.array_equal(made[name], values.astype(np.float16)), name

made, files = read(quarter)
scales = {name for name in made if name.endswith("_scale")}
assert len(scales) == 28 and made.keys() - scales == weights.keys()
for name, values in weights.items():
    scale = made.get(f"{name}_scale", np.ones(1, np.float32))
    again = made[name].astype(np.float32) * scale
    assert (made[name].dtype == ml_dtypes.float8_e4m3fn) == (f"{name}_scale" in made)
    assert (abs(again - values) <= abs(values) / 16 + scale * 2**-9).all(), name
print(len(weights), "tensors agree")
"""


@dataclass
class Reader:
    """Somebody who does what the text says, with a shell that keeps its variables."""

    folder: Path
    env: dict[str, str]

    def do(self, language: str, text: str) -> str:
        """Type a block of commands, or write a block into the file that it names."""
        if language == "sh":
            return self.type(text)
        named = FILE.match(text)
        assert named, text
        path = self.folder / named[2]
        assert path.exists(), "the text replaces what `slmhub plugins new` wrote"
        body = text[named.end() :]
        path.write_text(path.read_text() + "\n\n" + body if named[1] else body)
        return ""

    def type(self, text: str) -> str:
        """Run commands as a shell does; their output."""
        state = self.folder / ".variables"
        before = f"source {shlex.quote(str(state))}\n" if state.exists() else ""
        done = subprocess.run(
            ["bash", "-euc", f"{before}{text}\nexport -p > {shlex.quote(str(state))}"],
            cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr[-6000:]}"
        return done.stdout

    def answer(self, text: str, words: str, **variables: str) -> str:
        """Run a command at a terminal and answer what it asks; what the terminal showed."""
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(self.folder)
            os.execve("/bin/sh", ["/bin/sh", "-ec", text], self.env | variables)
        shown, deadline, answered = "", time.monotonic() + PATIENCE, False
        while time.monotonic() < deadline:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            shown += data.decode("utf-8", "replace")
            if "[y/N]" in shown and not answered:
                os.write(terminal, words.encode())
                answered = True
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown
        return shown


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Embedded]:
    made = Embedded(tmp_path, HUB_PLUGINS=str(tmp_path / "formats"))
    yield made
    made.clean()


@pytest.fixture
def reader(tmp_path: Path, hub: Embedded) -> Reader:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    binaries = Path(sys.executable).parent
    env |= {
        "PATH": f"{binaries}:{env['PATH']}",
        "CHECKOUT": str(ROOT),
        "HUB_PORT": str(hub.port),
        "COLUMNS": "200",
    }
    # The text has people type `uv`, which does not read what is configured for pip.
    for ours, pips in PIP_FOR_UV.items():
        if ours not in env and env.get(pips):
            env[ours] = env[pips]
    return Reader(tmp_path, env)


def test_the_text_is_short_and_names_every_file_of_a_plugin() -> None:
    blocks = BLOCK.findall(TUTORIAL)
    files = {
        found[2] for language, text in blocks if language != "sh" and (found := FILE.match(text))
    }
    assert {path.rpartition("/")[2] for path in files} == {
        "plugin.toml", "convert.py", "test_convert.py", "README.md"
    }  # fmt: skip
    converter = [text for _, text in blocks if "formats/recast/convert.py\n" in text[:60]]
    lengths = [sum(bool(line.strip()) for line in text.splitlines()[1:]) for text in converter]
    assert lengths[0] <= 55  # what converts
    assert lengths[1] <= 26  # what refuses, estimates and checks
    assert len(lengths) == 2


def test_the_document_says_everything_once() -> None:
    heads = re.findall(r"^##+ .*$", DOCUMENT, re.M)
    assert len(heads) == len(set(heads))


@pytest.mark.slow
@pytest.mark.plugin
def test_whoever_follows_the_tutorial_has_a_sixth_format(
    reader: Reader, hub: Embedded, tmp_path: Path
) -> None:
    *steps, (_, given) = BLOCK.findall(TUTORIAL)
    checks = []
    for language, text in steps:
        if "slmhub mirror" in text:
            hub.up()
        said = reader.do(language, text)
        if "plugins check" in text:
            checks.append(said)
    assert "failed" not in "".join(checks)
    assert "warning" not in "".join(checks)
    assert re.search(r"^copy +ok ", checks[0], re.M)
    for variant in ("FP16", "FP8"):
        assert re.search(rf"^{variant} +ok .*estimate [+-]0\.\d%", checks[1], re.M), checks[1]

    jobs = hub.http.get("/api/v1/jobs").json()["items"]
    (job,) = [one for one in jobs if one["kind"] == "convert"]
    assert job["options"] == {"shard_size": 1}
    folders = {}
    for artefact in job["artefacts"]:
        folders[artefact["variant"]] = folder = tmp_path / artefact["variant"]
        folder.mkdir()
        for file in artefact["files"]:
            answer = hub.http.get(urlsplit(file["url"]).path)
            (folder / file["path"]).write_bytes(answer.content)
    settings = Settings(data=hub.data, plugins=[tmp_path / "formats"])
    place = formats.environment(settings, formats.get(settings, "recast"))
    proof = [place / "bin" / "python", "-c", PROOF, ROOT / "samples/slmhub/stdlib-llama-3m"]
    done = subprocess.run(
        [*proof, folders["FP16"], folders["FP8"]], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("38 tensors agree\n", 0), done.stderr

    theirs = {"HUB_DATA": str(tmp_path / "theirs")}
    shown = reader.answer(given, "y\n", **theirs)
    assert "ml-dtypes==" in shown
    assert "shard_size: Size of a file, in MB (a whole number from 1 to 100000; else 2000)" in shown
    other = Settings(data=tmp_path / "theirs")
    assert formats.state(other, formats.get(other, "recast")).ready
