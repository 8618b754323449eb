"""Tiny models through the real builder, in the plugin's own environment: `python -m pytest .`"""

import hashlib
import importlib.util
import json
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "samples"
sys.path[:0] = [str(HERE), str(SAMPLES)]

import accept  # noqa: E402
import zoo  # noqa: E402
from job import Failure, Job  # noqa: E402

MANIFEST = tomllib.loads((HERE / "plugin.toml").read_text(encoding="utf-8"))
VARIANTS = [variant["name"] for variant in MANIFEST["variants"]]
OPTIONS = {name: option["default"] for name, option in MANIFEST["options"].items()}
FILES = ["config.json", "model.safetensors", "tokenizer.json"]
ZOO = [
    name for name, model in zoo.MODELS.items() if model.config["architectures"][0] in accept.KNOWN
]
GREEDY = 32


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("genai_convert", HERE / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = _load()


def make(source: Path, folder: Path, variant: str, **options: Any) -> dict[str, Any]:
    """Convert and check one variant; the scratch folder is shared by all in `folder`."""
    job = Job(folder / "scratch", variant, threads=1)
    output = folder / variant
    output.mkdir(parents=True)
    plugin.convert(source, output, variant, OPTIONS | options, job)
    assert job.reports[-1][0] == 1.0
    return plugin.check(output, job)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def headers(source: Path) -> dict[str, Any]:
    with (source / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return found


def off(source: Path, made: Path, variant: str, **options: Any) -> float:
    """How far the estimate of the size is off, as a share of the truth."""
    truth = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    files = {path.name: path.stat().st_size for path in source.iterdir()}
    config = json.loads((source / "config.json").read_text("utf-8"))
    said = plugin.estimate(config, files, headers(source), variant, OPTIONS | options)
    assert all(isinstance(each, int) and each > 0 for each in said.values())
    return abs(said["size"] / truth - 1)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.write("llama-3.2-1b", tmp_path_factory.mktemp("tied") / "model", width=128, layers=2)


@pytest.fixture(scope="module")
def made(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant of one model, in one job."""
    folder = tmp_path_factory.mktemp("made")
    seen = {variant: make(tied, folder, variant) for variant in VARIANTS}
    (folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(variant: str, made: Path, tied: Path) -> None:
    seen = json.loads((made / "seen.json").read_text("utf-8"))[variant]
    if variant.startswith("cpu-"):
        assert seen["tokens"] == plugin.TOKENS
        assert seen["runtime"].startswith("onnxruntime-genai ")
    else:
        assert seen["ran"] is False
        assert "Looked at: " in seen["note"]
    assert off(tied, made / variant, variant) < 0.03
    names = {str(path.relative_to(made / variant)) for path in (made / variant).rglob("*.*")}
    wanted = ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json")
    assert {f"{variant}/{name}" for name in wanted} <= names


def test_same_bytes(made: Path, tied: Path, tmp_path: Path) -> None:
    """A variant alone, in another folder, is what it was beside others: shared weights too."""
    make(tied, tmp_path, "dml-int4")
    assert digests(tmp_path / "dml-int4") == digests(made / "dml-int4")


def test_quantized_weights_are_shared(made: Path) -> None:
    stores = sorted(path.name for path in (made / "scratch" / "store").glob("*.data"))
    assert [name.rpartition("-")[2] for name in stores] == ["FLOAT.data", "FLOAT16.data"]


BARE = """
import os, sys
import onnxruntime_genai
sys.path.insert(0, os.path.join(os.path.dirname(onnxruntime_genai.__file__), "models"))
import builder
source, output, cache, *runs = sys.argv[1:]
for number, run in enumerate(runs):
    arguments = (source, source, os.path.join(output, str(number)), "int4", "cpu")
    options = builder.parse_extra_options(*arguments, cache, run.split())
    builder.create_model(*arguments, cache, **options)
"""


def test_weights_are_the_bare_builders(tied: Path, tmp_path: Path) -> None:
    """Streamed and in slices, or all at once: the same tensors and nodes."""
    import onnx

    away = {"block_size": 64, "accuracy_level": 1, "algorithm": "k_quant_mixed"}
    runs: list[dict[str, Any]] = [{}, away]
    command = [sys.executable, "-c", BARE, str(tied), str(tmp_path / "bare"), str(tmp_path / "c")]
    command += ["", "block_size=64 accuracy_level=1 algo_config=k_quant_mixed"]
    subprocess.run(command, check=True, capture_output=True)
    for number, options in enumerate(runs):
        folder = tmp_path / str(number)
        make(tied, folder, "cpu-int4", **options)
        ours = onnx.load(folder / "cpu-int4" / "cpu-int4" / "model.onnx").graph
        theirs = onnx.load(tmp_path / "bare" / str(number) / "model.onnx").graph
        assert _tensors(ours) == _tensors(theirs)
        assert _nodes(ours) == _nodes(theirs)
        assert off(tied, folder / "cpu-int4", "cpu-int4", **options) < 0.03


def _tensors(graph: Any) -> dict[str, tuple[list[int], bytes]]:
    return {each.name: (list(each.dims), each.raw_data) for each in graph.initializer}


def _nodes(graph: Any) -> list[str]:
    found = []
    for node in graph.node:
        values = sorted(each.SerializeToString(deterministic=True) for each in node.attribute)
        found.append(f"{node.name} {node.op_type} {list(node.input)} {list(node.output)} {values}")
    return sorted(found)


def test_slices_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import onnx_ir as ir
    import stream
    import torch

    parts = [torch.randn(rows, 8).to(torch.bfloat16) for rows in (6, 2, 2)]
    lazy = stream.Streamed(stream.Stack(parts).T, ir.DataType.FLOAT, "joint")
    whole = torch.cat(parts).T.float().numpy()
    monkeypatch.setattr(stream, "PIECE", 20)
    columns = [lazy.columns(*piece) for piece in stream.pieces(10, 8)]
    rows = [lazy.rows(*piece) for piece in stream.pieces(8, 10)]
    assert len(columns) > 2
    assert np.array_equal(np.concatenate(columns, axis=1), whole)
    assert np.array_equal(np.concatenate(rows), whole)
    assert np.array_equal(lazy.numpy(), whole)


def test_norms_are_not_rounded(tmp_path: Path) -> None:
    """The builder adds 1 to Gemma's norms: in BF16 that would lose their last bits."""
    import stream
    import torch

    source = zoo.write("gemma-3-1b", tmp_path / "model", width=128, layers=1)
    norm = stream._mapped(source).model.norm.weight
    assert headers(source)["model.norm.weight"]["dtype"] == "BF16"
    assert torch.equal((norm + 1).double(), norm.double() + 1)
    assert not torch.equal((norm.bfloat16() + 1).double(), norm.double() + 1)


COMPARE = """
import json, sys
import onnxruntime_genai as og
import torch
from transformers import AutoModelForCausalLM
source, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
ids = [300, 400, 500, 600, 700]
length = len(ids) + count
model = og.Model(folder)
parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
generator = og.Generator(model, parameters)
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
reference = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
with torch.no_grad():
    wanted = reference.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
        max_new_tokens=count, min_new_tokens=count)
print(json.dumps([[int(each) for each in generator.get_sequence(0)], wanted[0].tolist()]))
"""


@pytest.mark.parametrize("name", ["gemma-3-1b", "phi-4-mini", "smollm3-3b"])
def test_greedy_tokens_are_the_sources(name: str, tmp_path: Path) -> None:
    """The three that are made otherwise than Llama; bench/support.py compares them all."""
    source = zoo.write(name, tmp_path / "model")
    make(source, tmp_path, "cpu-fp32")
    folder = tmp_path / "cpu-fp32" / "cpu-fp32"
    command = [sys.executable, "-c", COMPARE, str(source), str(folder), str(GREEDY)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(theirs) == GREEDY + 5
    assert ours == theirs
    assert off(source, tmp_path / "cpu-fp32", "cpu-fp32") < 0.03


def test_only_a_sentencepiece_tokenizer(tmp_path: Path) -> None:
    source = zoo.write("llama-2-7b", tmp_path / "model", width=128, layers=1, tokenizer="model")
    assert make(source, tmp_path, "cpu-int4")["tokens"] == plugin.TOKENS
    assert off(source, tmp_path / "cpu-int4", "cpu-int4") < 0.03


def test_architectures_are_the_builders() -> None:
    root = importlib.util.find_spec("onnxruntime_genai")
    assert root is not None
    assert root.submodule_search_locations
    folder = Path(root.submodule_search_locations[0], "models")
    code = (folder / "builder.py").read_text(encoding="utf-8")
    assert all(f'architectures[0] == "{name}"' in code for name in accept.KNOWN)


@pytest.mark.parametrize("name", ZOO)
def test_supported(name: str) -> None:
    assert plugin.supports(zoo.config(name), FILES) is None


@pytest.mark.parametrize("what", sorted(set(zoo.BAD) - {"shard missing"}))
def test_refused(what: str, tmp_path: Path) -> None:
    source = zoo.write_bad(what, tmp_path / "model")
    config = json.loads((source / "config.json").read_text("utf-8"))
    reason = plugin.supports(config, [path.name for path in source.iterdir()])
    assert reason is not None
    with pytest.raises(Failure) as raised:
        make(source, tmp_path, "cpu-int4")
    assert raised.value.message == reason
    assert raised.value.hint


def test_damaged_weights(tied: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for path in tied.iterdir():
        (source / path.name).write_bytes(path.read_bytes()[: 5000 if "safe" in path.name else None])
    with pytest.raises(Failure) as raised:
        make(source, tmp_path, "cpu-int4")
    assert raised.value.kind == "corrupt_weights"


def test_an_answer_waits_for_no_large_package() -> None:
    code = "import sys; sys.path.insert(0, '.'); import convert; convert.supports({}, [])\n"
    code += 'assert not {"numpy", "torch", "onnx", "onnxruntime_genai"} & set(sys.modules)'
    subprocess.run([sys.executable, "-I", "-c", code], cwd=HERE, check=True)
