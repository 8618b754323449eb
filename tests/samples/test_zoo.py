"""The zoo: models as they are published but for their size, the same bytes every time."""

import hashlib
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SHRUNK = {
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "no_rope_layers",
    "layer_types",
}
TOKENS = {"bos_token_id", "eos_token_id", "pad_token_id"}


def load() -> ModuleType:
    """The zoo as plugins' tests import it: by its path, with nothing of ours around it."""
    spec = importlib.util.spec_from_file_location("zoo", ROOT / "samples" / "zoo.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module


zoo = load()
NAMES = sorted(zoo.MODELS)


def header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        table: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    table.pop("__metadata__")
    return table


def read(path: Path, name: str) -> np.ndarray:
    """A tensor of a file, as float32 or as bytes."""
    entry = header(path)[name]
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    first, last = entry["data_offsets"]
    raw = np.frombuffer(content[start + first : start + last], "u1")
    if entry["dtype"] == "BF16":
        raw = (raw.view("<u2").astype("<u4") << 16).view("<f4")
    elif entry["dtype"] != "U8":
        raw = raw.view({"F16": "<f2", "F32": "<f4"}[entry["dtype"]]).astype("<f4")
    return raw.reshape(entry["shape"])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zoo")
    return {name: zoo.write(name, folder / name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_keeps_what_the_published_configuration_decides(
    name: str, written: dict[str, Path]
) -> None:
    shrunk = json.loads((written[name] / "config.json").read_bytes())
    published = zoo.MODELS[name].config
    assert set(published) == set(shrunk)
    different = {key for key in published if published[key] != shrunk[key]}
    scaling = {"rope_scaling"} if "phi" in name else set()
    assert different <= SHRUNK | TOKENS | scaling | {"torch_dtype"}


@pytest.mark.parametrize("name", ["phi-3.5-mini", "phi-4-mini"])
def test_resizes_the_factors_of_longrope_to_the_head(name: str) -> None:
    shrunk = zoo.config(name)
    head = shrunk["hidden_size"] // shrunk["num_attention_heads"]
    turned = int(head * shrunk.get("partial_rotary_factor", 1.0))
    published = zoo.MODELS[name].config["rope_scaling"]
    for key in ("long_factor", "short_factor"):
        assert len(published[key]) == 48
        factors = shrunk["rope_scaling"][key]
        assert len(factors) == turned // 2
        assert (factors[0], factors[-1]) == (published[key][0], published[key][-1])


def test_has_both_kinds_of_layers_where_there_are_two() -> None:
    assert set(zoo.config("smollm3-3b")["no_rope_layers"]) == {0, 1}
    gemma = zoo.config("gemma-3-1b")
    assert gemma["num_hidden_layers"] >= gemma["sliding_window_pattern"]


@pytest.mark.parametrize("name", NAMES)
def test_is_small_and_fills_its_file(name: str, written: dict[str, Path]) -> None:
    folder = written[name]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16e6
    end = 0
    for entry in header(folder / "model.safetensors").values():
        width = {"BF16": 2, "U8": 1}[entry["dtype"]]
        assert entry["data_offsets"] == [end, end + width * math.prod(entry["shape"])]
        end = entry["data_offsets"][1]


@pytest.mark.parametrize("name", NAMES)
def test_stores_the_head_as_published(name: str, written: dict[str, Path]) -> None:
    table = header(written[name] / "model.safetensors")
    assert ("lm_head.weight" in table) == zoo.MODELS[name].stored_head
    if not zoo.config(name).get("tie_word_embeddings", True):
        assert "lm_head.weight" in table


@pytest.mark.parametrize("name", NAMES)
def test_rows_suit_blocks_of_256_weights(name: str, written: dict[str, Path]) -> None:
    shapes = [entry["shape"] for entry in header(written[name] / "model.safetensors").values()]
    assert all(shape[1] % 256 == 0 for shape in shapes if len(shape) == 2)


def test_writes_the_same_bytes_again(tmp_path: Path, written: dict[str, Path]) -> None:
    again = zoo.write("gemma-3-1b", tmp_path / "again")
    other = zoo.write("gemma-3-1b", tmp_path / "other", seed=99)
    assert digests(again) == digests(written["gemma-3-1b"])
    assert digests(other) != digests(again)


def test_writes_the_bytes_that_it_wrote_before(written: dict[str, Path]) -> None:
    # What a model says is compared with figures in documents: a change here has to be meant.
    weights = (written["llama-3.2-1b"] / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == DIGEST


DIGEST = "13f613fe14899291c2cd3a1b16a55f71c0c95035618383dd47115f76953d169b"


def test_is_the_same_model_in_every_type(tmp_path: Path) -> None:
    folders = [zoo.write("qwen3-0.6b", tmp_path / dtype, dtype=dtype) for dtype in zoo.DTYPES]
    for tensor in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        first, *others = [read(folder / "model.safetensors", tensor) for folder in folders]
        assert first.std() > 0
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_a_tied_head_is_the_embeddings(written: dict[str, Path]) -> None:
    weights = written["qwen3-0.6b"] / "model.safetensors"
    head = read(weights, "lm_head.weight")
    np.testing.assert_array_equal(head, read(weights, "model.embed_tokens.weight"))


def test_an_untied_head_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not tied"):
        zoo.write("llama-3-8b", tmp_path, stored_head=False)


def test_packs_ternary_weights_four_in_a_byte(written: dict[str, Path]) -> None:
    weights = written["bitnet-b1.58-2b"] / "model.safetensors"
    packed = read(weights, "model.layers.0.mlp.down_proj.weight")
    assert packed.dtype == np.uint8
    assert packed.shape == (64, 512)
    digits = {(int(byte) >> shift) & 3 for byte in np.unique(packed) for shift in (0, 2, 4, 6)}
    assert digits == {0, 1, 2}
    assert read(weights, "model.layers.0.mlp.down_proj.weight_scale").shape == (1,)


def test_shards_hold_every_tensor_once(tmp_path: Path, written: dict[str, Path]) -> None:
    folder = zoo.write("llama-3.2-1b", tmp_path, shards=3)
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
    files = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert files == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    whole = header(written["llama-3.2-1b"] / "model.safetensors")
    assert set(index) == set(whole)
    for name, file in index.items():
        assert header(folder / file)[name]["shape"] == whole[name]["shape"]


@pytest.mark.parametrize(
    ("which", "files"),
    [
        ("json", {"tokenizer.json"}),
        ("model", {"tokenizer.model"}),
        ("both", {"tokenizer.json", "tokenizer.model"}),
    ],
)
def test_has_the_tokenizer_files_that_are_wanted(
    which: str, files: set[str], tmp_path: Path
) -> None:
    folder = zoo.write("mistral-7b", tmp_path, tokenizer=which, layers=1)
    assert {path.name for path in folder.glob("tokenizer.*")} == files


def test_grows_with_the_width(tmp_path: Path) -> None:
    folder = zoo.write("llama-3-8b", tmp_path, width=512, layers=1)
    assert json.loads((folder / "config.json").read_bytes())["num_attention_heads"] == 8
    shape = header(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]["shape"]
    assert shape == [1024, 512]


@pytest.mark.parametrize("what", sorted(zoo.BAD))
def test_bad_inputs_are_bad_in_one_thing(what: str, tmp_path: Path) -> None:
    folder = zoo.write_bad(what, tmp_path)
    config = json.loads((folder / "config.json").read_bytes())
    files = {path.name for path in folder.iterdir()}
    if what in zoo.QUANTIZED:
        assert config["quantization_config"]["quant_method"] == what
    elif what == "shard missing":
        assert "model-00001-of-00002.safetensors" in files
        assert "model-00002-of-00002.safetensors" not in files
    elif what == "no tokenizer":
        assert not {"tokenizer.json", "tokenizer.model"} & files
    else:
        assert config["architectures"] != ["LlamaForCausalLM"]
