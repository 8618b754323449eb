"""Tiny models through mlx-lm, in the plugin's own environment: `python -m pytest .`"""

import importlib
import importlib.util
import json
import math
import re
import shutil
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

import mlx.core as mx  # noqa: E402
import recipes  # noqa: E402
import runtime  # noqa: E402
import source as models  # noqa: E402
import ternary  # noqa: E402
import weights  # noqa: E402
import zoo  # noqa: E402
from job import Failure, Job  # noqa: E402
from mlx.utils import tree_map  # noqa: E402
from mlx_lm.convert import QUANT_RECIPES  # noqa: E402
from mlx_lm.convert import convert as stock_convert  # noqa: E402

MANIFEST = tomllib.loads((HERE / "plugin.toml").read_text(encoding="utf-8"))
VARIANTS = [variant["name"] for variant in MANIFEST["variants"]]
OPTIONS = {name: option["default"] for name, option in MANIFEST["options"].items()}
SAMPLE = SAMPLES / "slmhub" / "stdlib-llama-3m"
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
FILES = ["config.json", "model.safetensors", "tokenizer.json"]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlx_convert", HERE / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = _load()


def make(source: Path, folder: Path, variant: str, threads: int = 2, **options: Any) -> Job:
    """Convert into `folder`; returns the job that was told of it."""
    folder.mkdir(parents=True)
    job = Job(folder.parent / f"{folder.name}.scratch", variant, threads)
    plugin.convert(source, folder, variant, OPTIONS | options, job)
    return job


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def headers(folder: Path) -> dict[str, dict[str, Any]]:
    """The headers of a folder's weights, as the host gives them to `estimate`."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        header.pop("__metadata__", None)
        found |= {
            name: {"dtype": entry["dtype"], "shape": entry["shape"]}
            for name, entry in header.items()
        }
    return found


def estimate(source: Path, variant: str, **options: Any) -> dict[str, int]:
    config = read(source / "config.json")
    files = {name: len(content) for name, content in contents(source).items()}
    return plugin.estimate(config, files, headers(source), variant, OPTIONS | options)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def edit(source: Path, drop: tuple[str, ...] = (), **values: Any) -> None:
    """Change keys of config.json."""
    path = source / "config.json"
    config = {key: value for key, value in read(path).items() if key not in drop} | values
    path.write_text(json.dumps(config), encoding="utf-8")


def rewrite(source: Path, change: Any) -> None:
    """Let `change` replace tensors, given and returned as a dict of arrays."""
    path = source / "model.safetensors"
    tensors = change(dict(mx.load(str(path))))
    mx.eval(tensors)
    path.unlink()
    mx.save_safetensors(str(path), tensors)


def logits(artefact: Path) -> mx.array:
    """What the artefact says after a fixed text, computed in FP32."""
    model, _ = runtime.load(artefact)
    model.update(
        tree_map(
            lambda one: one.astype(mx.float32) if mx.issubdtype(one.dtype, mx.floating) else one,
            model.parameters(),
        )
    )
    return model(mx.array([[1, 300, 400, 500, 600, 700, 800, 900]]))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.write("qwen3-0.6b", tmp_path_factory.mktemp("source") / "qwen")


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_cores_share_a_product_without_changing_it(mode: str) -> None:
    mx.random.seed(1)
    x = mx.random.normal((3, 256))
    for rows in (511, 513, 1030):
        size = 64 if mode == "affine" else 32
        packed = mx.quantize(mx.random.normal((rows, 256)), size, 4, mode=mode)
        settings = {"transpose": True, "group_size": size, "bits": 4, "mode": mode}
        alone = mx.quantized_matmul(x, *packed, **settings)
        with runtime.shared(3):
            together = mx.quantized_matmul(x, *packed, **settings)
        assert mx.array_equal(alone, together).item(), rows
    assert mx.quantized_matmul.__name__ == "quantized_matmul", "it is put back"


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_equals_the_bare_tool_and_runs(variant: str, qwen: Path, tmp_path: Path) -> None:
    made, bare = tmp_path / "made", tmp_path / "bare"
    job = make(qwen, made, variant)
    recipe = recipes.RECIPES[variant]
    stock_convert(
        str(qwen),
        str(bare),
        quantize=recipe.bits is not None,
        q_bits=recipe.bits,
        q_group_size=recipe.group_size or 64,
        q_mode=recipe.mode,
        dtype=recipe.dtype,
        quant_predicate=variant if recipe.high_bits else None,
    )
    ours, theirs = (mx.load(str(folder / "model.safetensors")) for folder in (made, bare))
    assert list(ours) != []
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        assert mx.array_equal(array, theirs[name]), name
    index = "model.safetensors.index.json"
    assert (made / index).read_bytes() == (bare / index).read_bytes()
    theirs = read(bare / "config.json")
    if recipe.dtype:
        theirs["torch_dtype"] = recipe.dtype
    assert read(made / "config.json") == theirs
    assert not (made / "README.md").exists()
    assert all(path.stat().st_nlink == 1 for path in made.iterdir())

    seen = plugin.check(made, job)
    assert seen["tokens"] == plugin.TOKENS
    assert seen["tokens_per_second"] > 0
    assert re.fullmatch(r"mlx-lm [\d.]+ \(mlx [\d.]+, (CPU|Metal)\)", seen["runtime"])
    size = sum(len(content) for content in contents(made).values())
    assert estimate(qwen, variant)["size"] == pytest.approx(size, rel=0.001)
    done = [done for done, _ in job.reports]
    assert done == sorted(done)
    assert len(done) > 20
    assert done[-1] == 1.0


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_model_of_the_zoo(name: str, tmp_path: Path) -> None:
    source = zoo.write(name, tmp_path / "source")
    config = read(source / "config.json")
    assert plugin.supports(config, [path.name for path in source.iterdir()]) is None
    for variant, size in (("4bit", 32), ("mixed_2_6", 128)):
        made = tmp_path / variant
        job = make(source, made, variant, group_size=size)
        assert plugin.check(made, job)["tokens"] > 0
        truth = sum(len(content) for content in contents(made).values())
        assert estimate(source, variant, group_size=size)["size"] == pytest.approx(truth, rel=0.001)


def test_the_sample_writes_sense(tmp_path: Path) -> None:
    job = make(SAMPLE, tmp_path / "made", "8bit")
    text = plugin.check(tmp_path / "made", job)["text"]
    assert re.search(r"\b(the|of|is|a)\b", text)


def test_same_bytes_twice_on_any_number_of_threads(qwen: Path, tmp_path: Path) -> None:
    for variant in ("4bit", "mixed_3_6", "mxfp4", "fp16"):
        make(qwen, tmp_path / variant / "first", variant, threads=1)
        make(qwen, tmp_path / variant / "second", variant, threads=4)
        first, second = (contents(tmp_path / variant / one) for one in ("first", "second"))
        assert first == second


def test_group_sizes(qwen: Path, tmp_path: Path) -> None:
    sizes = {}
    for size in (32, 64, 128):
        make(qwen, tmp_path / str(size), "4bit", group_size=size)
        assert read(tmp_path / str(size) / "config.json")["quantization"]["group_size"] == size
        sizes[size] = (tmp_path / str(size) / "model.safetensors").stat().st_size
    assert sizes[32] > sizes[64] > sizes[128]


def test_rows_that_do_not_divide_stay_and_are_told(tmp_path: Path) -> None:
    source = zoo.write("llama-3.2-1b", tmp_path / "source")

    def narrow(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        cut = {"gate_proj": (480, None), "up_proj": (480, None), "down_proj": (None, 480)}
        for name, array in tensors.items():
            for part, (rows, columns) in cut.items():
                if part in name:
                    tensors[name] = mx.contiguous(array[:rows, :columns])
        return tensors

    rewrite(source, narrow)
    edit(source, intermediate_size=480)
    layers = read(source / "config.json")["num_hidden_layers"]
    job = make(source, tmp_path / "made", "4bit")
    told = f"{layers} layers stay bfloat16: their rows do not divide by 64"
    assert told in job.reports[-1][1]
    assert plugin.check(tmp_path / "made", job)["tokens"] == plugin.TOKENS
    truth = sum(len(content) for content in contents(tmp_path / "made").values())
    assert estimate(source, "4bit")["size"] == pytest.approx(truth, rel=0.001)


@pytest.mark.parametrize(
    ("name", "shards"), [("qwen3-0.6b", 3), ("gemma-3-1b", 1), ("phi-4-mini", 1)]
)
def test_tied_weights_stored_or_not(name: str, shards: int, tmp_path: Path) -> None:
    made = []
    for stored in (True, False):
        source = zoo.write(name, tmp_path / f"{stored}", stored_head=stored, shards=shards)
        make(source, tmp_path / f"made {stored}", "4bit")
        made.append(contents(tmp_path / f"made {stored}"))
    assert made[0] == made[1]


def test_silence_about_tying_means_what_is_stored(tmp_path: Path) -> None:
    source = zoo.write("llama-3-8b", tmp_path / "source")
    make(source, tmp_path / "told", "bf16")
    edit(source, drop=("tie_word_embeddings",))
    make(source, tmp_path / "silent", "bf16")
    assert contents(tmp_path / "told") == contents(tmp_path / "silent")


@pytest.mark.parametrize("name", ["llama-3-8b", "llama-3.2-1b", "gemma-3-1b", "phi-4-mini"])
def test_config_of_transformers_5(name: str, tmp_path: Path) -> None:
    """RoPE in rope_parameters, the type in dtype: the same model, and to mlx-lm alone another."""
    source = zoo.write(name, tmp_path / "source")
    make(source, tmp_path / "before", "bf16")
    config = read(source / "config.json")
    scaling = dict(config.get("rope_scaling") or {})
    nested = {"rope_type": scaling.pop("type", scaling.pop("rope_type", "default")), **scaling}
    nested["rope_theta"] = config.get("rope_theta", 10000.0)
    if "partial_rotary_factor" in config:
        nested["partial_rotary_factor"] = config["partial_rotary_factor"]
    if name.startswith("gemma"):
        local = {"rope_type": "default", "rope_theta": config["rope_local_base_freq"]}
        nested = {"full_attention": nested, "sliding_attention": local}
    gone = ("rope_theta", "rope_scaling", "rope_local_base_freq", "torch_dtype")
    gone += ("partial_rotary_factor",)
    edit(source, drop=gone, rope_parameters=nested, dtype="bfloat16")
    make(source, tmp_path / "after", "bf16")
    assert mx.array_equal(logits(tmp_path / "before"), logits(tmp_path / "after"))


def test_longrope_is_the_table_that_was_asked_for(tmp_path: Path) -> None:
    source = zoo.write("phi-3.5-mini", tmp_path / "source")
    make(source, tmp_path / "long", "bf16")
    make(source, tmp_path / "short", "bf16", longrope="short")
    factors = read(source / "config.json")["rope_scaling"]
    for which in ("long", "short"):
        made = read(tmp_path / which / "config.json")["rope_scaling"]
        assert made["long_factor"] == factors[f"{which}_factor"]
    assert not mx.allclose(logits(tmp_path / "long"), logits(tmp_path / "short"), atol=0.1)


def pack(level: mx.array) -> mx.array:
    """Ternary levels 0, 1, 2 as the publishers of BitNet store them."""
    parts = level.reshape(4, level.shape[0] // 4, level.shape[1]).astype(mx.uint8)
    return parts[0] | (parts[1] << 2) | (parts[2] << 4) | (parts[3] << 6)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
def test_two_bits_hold_ternary_weights_exactly(group_size: int, dtype: mx.Dtype) -> None:
    mx.random.seed(0)
    level = mx.random.randint(0, 3, (64, 256))
    scale = mx.array([0.37]).astype(dtype)
    wanted = (level - 1).astype(dtype) * scale
    assert mx.array_equal(ternary.dense(pack(level), scale, dtype), wanted)
    packed = ternary.affine(pack(level), scale, group_size, dtype)
    assert mx.array_equal(mx.dequantize(*packed, group_size=group_size, bits=2), wanted)


def test_bitnet_keeps_its_ternary_weights(tmp_path: Path) -> None:
    source = zoo.write("bitnet-b1.58-2b", tmp_path / "source")
    make(source, tmp_path / "made", "4bit")
    before, after = (
        mx.load(str(folder / "model.safetensors")) for folder in (source, tmp_path / "made")
    )
    packed = [name for name, array in before.items() if array.dtype == mx.uint8]
    assert packed
    for name in packed:
        assert mx.array_equal(before[name], after[name])
    assert after["model.embed_tokens.weight"].dtype == mx.uint32


def test_bitnet_whose_scales_divide(tmp_path: Path) -> None:
    """linear_class bitlinear: transformers divides by weight_scale, mlx-lm's BitNet multiplies."""
    source = zoo.write("bitnet-b1.58-2b", tmp_path / "source")

    def scaled(value: float) -> None:
        def change(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
            scale = mx.array([value], dtype=mx.bfloat16)
            return {
                name: scale if name.endswith("weight_scale") else array
                for name, array in tensors.items()
            }

        rewrite(source, change)

    scaled(1 / 16)
    make(source, tmp_path / "multiplies", "bf16")
    scaled(16)
    edit(source, quantization_config={"quant_method": "bitnet"})
    make(source, tmp_path / "divides", "bf16")
    assert mx.array_equal(logits(tmp_path / "multiplies"), logits(tmp_path / "divides"))


def test_llama_with_ternary_weights(tmp_path: Path) -> None:
    """Unpacked, or at exactly two bits in every quantized variant."""
    source = zoo.write("llama-3.2-1b", tmp_path / "source")
    scale = mx.array([0.05], dtype=mx.bfloat16)

    def quantize(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        for name, array in list(tensors.items()):
            if "_proj." in name:
                tensors[name] = pack(mx.clip(mx.round(array.astype(mx.float32) * 20), -1, 1) + 1)
                tensors[f"{name}_scale"] = scale
        return tensors

    rewrite(source, quantize)
    settings = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    edit(source, quantization_config=settings)
    assert plugin.supports(read(source / "config.json"), FILES) is None
    plain, packed = tmp_path / "bf16", tmp_path / "8bit"
    for folder in (plain, packed):
        job = make(source, folder, folder.name)
        assert plugin.check(folder, job)["tokens"] == plugin.TOKENS
        truth = sum(len(content) for content in contents(folder).values())
        assert estimate(source, folder.name)["size"] == pytest.approx(truth, rel=0.001)
    assert "quantization_config" not in read(plain / "config.json")
    dense, two = (mx.load(str(folder / "model.safetensors")) for folder in (plain, packed))
    path = "model.layers.0.mlp.down_proj"
    settings = read(packed / "config.json")["quantization"][path]
    assert settings["bits"] == 2
    parts = [two[f"{path}.{part}"] for part in ("weight", "scales", "biases")]
    again = mx.dequantize(*parts, group_size=settings["group_size"], bits=2)
    assert mx.array_equal(again, dense[f"{path}.weight"])


def test_mixture_of_experts(tmp_path: Path) -> None:
    source = zoo.write("qwen3-0.6b", tmp_path / "source")

    def multiply(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        for name in [name for name in tensors if ".mlp." in name]:
            array, layer = tensors.pop(name), name.partition(".mlp.")[0]
            tensors[f"{layer}.mlp.gate.weight"] = array[:4, :256]
            for expert in range(4):
                tensors[name.replace(".mlp.", f".mlp.experts.{expert}.")] = array * (1 + expert)
        return tensors

    rewrite(source, multiply)
    inner = read(source / "config.json")["intermediate_size"]
    keys = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": inner}
    keys |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
    edit(source, model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], **keys)
    assert plugin.supports(read(source / "config.json"), FILES) is None
    for variant in ("4bit", "mixed_3_6", "bf16"):
        job = make(source, tmp_path / variant, variant)
        assert plugin.check(tmp_path / variant, job)["tokens"] > 0
        truth = sum(len(content) for content in contents(tmp_path / variant).values())
        assert estimate(source, variant)["size"] == pytest.approx(truth, rel=0.002)


@pytest.mark.parametrize("tokenizer", ["json", "model"])
def test_one_tokenizer_is_enough(tokenizer: str, tmp_path: Path) -> None:
    source = zoo.write("llama-3.2-1b", tmp_path / "source", tokenizer=tokenizer)
    job = make(source, tmp_path / "made", "4bit")
    assert plugin.check(tmp_path / "made", job)["tokens"] > 0
    assert (tmp_path / "made" / "tokenizer.json").exists()
    from mlx_lm.utils import load_tokenizer

    made, whole = load_tokenizer(tmp_path / "made"), load_tokenizer(SAMPLE)
    for text in ("Once upon a time", "def f(x):\n    return x", "é € 漢"):
        assert made.encode(text) == whole.encode(text)


def test_byte_pairs_in_two_files(tmp_path: Path) -> None:
    from mlx_lm.utils import load_tokenizer
    from tokenizers import ByteLevelBPETokenizer

    source = zoo.write("qwen2.5-0.5b", tmp_path / "source")
    for name in ("tokenizer.json", "tokenizer.model", "special_tokens_map.json"):
        (source / name).unlink()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["the model reads a line"] * 50, 300, show_progress=False)
    tokenizer.save_model(str(source))
    settings = {"tokenizer_class": "Qwen2Tokenizer"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    make(source, tmp_path / "made", "4bit")
    text = "the line reads"
    assert load_tokenizer(tmp_path / "made").encode(text) == tokenizer.encode(text).ids
    (source / "merges.txt").unlink()
    assert refusal(source, tmp_path / "again").kind == "missing_tokenizer"


def test_weights_of_other_float_types(tmp_path: Path) -> None:
    for dtype, word in (("F32", mx.float32), ("F16", mx.float16)):
        source = zoo.write("smollm2-135m", tmp_path / dtype, dtype=dtype)
        make(source, tmp_path / f"{dtype} 4bit", "4bit")
        made = mx.load(str(tmp_path / f"{dtype} 4bit" / "model.safetensors"))
        assert made["model.embed_tokens.scales"].dtype == word
        make(source, tmp_path / f"{dtype} bf16", "bf16")
        made = mx.load(str(tmp_path / f"{dtype} bf16" / "model.safetensors"))
        assert {array.dtype for array in made.values()} == {mx.bfloat16}
        truth = sum(len(content) for content in contents(tmp_path / f"{dtype} 4bit").values())
        assert estimate(source, "4bit")["size"] == pytest.approx(truth, rel=0.001)


def test_files_are_split_as_mlx_lm_does(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(qwen, tmp_path / "whole", "4bit")
    monkeypatch.setattr(weights.layout, "SHARD", 300_000)
    job = make(qwen, tmp_path / "split", "4bit")
    parts = sorted((tmp_path / "split").glob("model-*.safetensors"))
    assert len(parts) > 2
    assert parts[0].name == f"model-00001-of-{len(parts):05d}.safetensors"
    whole = mx.load(str(tmp_path / "whole" / "model.safetensors"))
    split: dict[str, mx.array] = {}
    for part in parts:
        split |= mx.load(str(part))
    assert whole.keys() == split.keys()
    assert all(mx.array_equal(array, split[name]) for name, array in whole.items())
    assert plugin.check(tmp_path / "split", job)["tokens"] == plugin.TOKENS


def test_manifest_and_recipes_have_the_same_variants() -> None:
    assert sorted(VARIANTS) == sorted(recipes.RECIPES)
    mixtures = [name for name, recipe in recipes.RECIPES.items() if recipe.high_bits]
    assert sorted(mixtures) == sorted(QUANT_RECIPES)


def test_model_types_are_those_of_mlx_lm() -> None:
    """The list is read, not run: here mlx-lm's modules are imported, and have to say the same."""
    from mlx_lm.utils import MODEL_REMAPPING

    known = models.model_types()
    folder = Path(importlib.import_module("mlx_lm.models").__path__[0])
    for path in folder.glob("[!_]*.py"):
        if path.stem in models.INCOMPLETE:
            with pytest.raises((ImportError, SystemExit)):
                importlib.import_module(f"mlx_lm.models.{path.stem}")
            continue
        module = importlib.import_module(f"mlx_lm.models.{path.stem}")
        complete = hasattr(module, "Model") and hasattr(module, "ModelArgs")
        assert complete == (path.stem in known), path.stem
    assert {name: to for name, to in known.items() if name in MODEL_REMAPPING} == MODEL_REMAPPING


@pytest.mark.parametrize(
    "config",
    [
        QWEN3,
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
        {"model_type": "phi3", "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}},
        {"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet"}},
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
    ],
)
def test_supported(config: dict[str, Any]) -> None:
    assert plugin.supports(config, FILES) is None


@pytest.mark.parametrize(
    ("config", "files", "named"),
    [
        ({}, FILES, "model_type"),
        ({"model_type": "novel"}, FILES, "novel"),
        ({"model_type": "novel", "auto_map": {}}, FILES, "never run"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, FILES, "bert"),
        ({"model_type": "t5", "is_encoder_decoder": True}, FILES, "encoder"),
        (QWEN3 | {"model_file": "model.py"}, FILES, "its own code"),
        (QWEN3 | {"architectures": ["Qwen3Model"]}, FILES, "Qwen3Model"),
        (QWEN3 | {"architectures": ["Qwen3ForSequenceClassification"]}, FILES, "generate"),
        (QWEN3 | {"quantization": {"bits": 4}}, FILES, "for MLX"),
        (QWEN3 | {"rope_scaling": {"rope_type": "spiral"}}, FILES, "spiral"),
        ({"model_type": "bitnet"}, FILES, "not packed"),
        (QWEN3, ["config.json", "model.safetensors"], "tokenizer"),
        (QWEN3, ["config.json", "weights.safetensors", "tokenizer.json"], "model*.safetensors"),
        (QWEN3, ["tokenizer.json", "model-00001-of-00002.safetensors"], "model-00002-of-00002"),
    ],
)
def test_refused_by_name(config: dict[str, Any], files: list[str], named: str) -> None:
    reason = plugin.supports(config, files)
    assert reason is not None
    assert named in reason


@pytest.mark.parametrize("what", sorted(zoo.BAD))
def test_bad_model_is_refused(what: str, tmp_path: Path) -> None:
    source = zoo.write_bad(what, tmp_path / "source")
    reason = plugin.supports(read(source / "config.json"), [path.name for path in source.iterdir()])
    assert reason
    with pytest.raises(Failure) as raised:
        make(source, tmp_path / "made", "4bit")
    assert raised.value.message == reason
    assert raised.value.hint


def test_an_answer_takes_less_than_a_second(qwen: Path) -> None:
    asked = [read(qwen / "config.json"), headers(qwen), VARIANTS, OPTIONS, FILES]
    code = """
import json, sys, time
sys.path.insert(0, '.')
import convert
config, tensors, variants, options, files = json.load(sys.stdin)
assert convert.supports(config, files) is None
for variant in variants:
    convert.estimate(config, dict.fromkeys(files, 9), tensors, variant, options)
assert 'mlx' not in sys.modules and 'numpy' not in sys.modules
assert time.process_time() < 1
"""
    subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=HERE, input=json.dumps(asked), text=True, check=True
    )


def refusal(source: Path, folder: Path, variant: str = "4bit") -> Failure:
    with pytest.raises(Failure) as raised:
        make(source, folder, variant)
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize("size", [0, 5, 100, 100_000])
def test_truncated_weights(size: int, qwen: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(qwen, source)
    with (source / "model.safetensors").open("r+b") as file:
        file.truncate(size)
    failure = refusal(source, tmp_path / "made")
    assert failure.kind == "corrupt_weights"
    assert "model.safetensors" in failure.message


def test_tensor_that_the_architecture_does_not_have(qwen: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(qwen, source)
    rewrite(source, lambda tensors: tensors | {"model.surprise.weight": mx.zeros((8, 8))})
    failure = refusal(source, tmp_path / "made")
    assert failure.kind == "unexpected_weights"
    assert "model.surprise.weight" in failure.message


def test_tensor_that_is_missing(qwen: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(qwen, source)

    def lose(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        del tensors["model.norm.weight"]
        return tensors

    rewrite(source, lose)
    failure = refusal(source, tmp_path / "made")
    assert failure.kind == "unexpected_weights"
    assert "model.norm.weight" in failure.message


def test_values_beyond_fp16(qwen: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(qwen, source)
    name = "model.norm.weight"
    rewrite(source, lambda tensors: tensors | {name: tensors[name] * 1e6})
    failure = refusal(source, tmp_path / "made", "fp16")
    assert failure.kind == "out_of_range"


def test_broken_artefact_fails_its_check(qwen: Path, tmp_path: Path) -> None:
    job = make(qwen, tmp_path / "made", "bf16")
    rewrite(
        tmp_path / "made",
        lambda tensors: tensors | {"model.norm.weight": tensors["model.norm.weight"] * math.nan},
    )
    with pytest.raises(Failure) as raised:
        plugin.check(tmp_path / "made", job)
    assert raised.value.kind == "check_failed"
    (tmp_path / "made" / "model.safetensors").unlink()
    with pytest.raises(Failure) as raised:
        plugin.check(tmp_path / "made", job)
    assert raised.value.kind == "check_failed"


@pytest.mark.skipif(sys.platform != "linux", reason="the host measures memory on Linux only")
@pytest.mark.parametrize("variant", ["4bit", "bf16"])
def test_memory_stays_under_its_estimate(variant: str, tmp_path: Path) -> None:
    code = """
import json, sys, threading, time
from pathlib import Path
sys.path.insert(0, '.')
import convert
seen = []
def look():
    while True:
        lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
        seen.append(next(int(line.split()[1]) for line in lines if line.startswith('Pss_Anon')))
        time.sleep(0.01)
threading.Thread(target=look, daemon=True).start()
class Job:
    threads, scratch = 2, Path(sys.argv[2])
    def report(self, done, message): pass
output = Path(sys.argv[2], 'made')
output.mkdir()
convert.convert(Path(sys.argv[1]), output, sys.argv[3], json.loads(sys.argv[4]), Job())
convert.check(output, Job())
print(max(seen))
"""
    arguments = [str(SAMPLE), str(tmp_path), variant, json.dumps(OPTIONS)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
    )
    peak = 1024 * int(done.stdout.split()[-1])
    # The peak is looked for in turns: on a busy machine it may be missed, and seem smaller.
    assert peak <= 1.1 * estimate(SAMPLE, variant)["memory"] <= 3 * peak
