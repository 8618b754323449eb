"""Tiny models through the real tools, in the plugin's own environment: `python -m pytest .`"""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "samples")]

import accept  # noqa: E402
import layout  # noqa: E402
import zoo  # noqa: E402
from job import Failure, Job  # noqa: E402

MANIFEST = tomllib.loads((HERE / "plugin.toml").read_text(encoding="utf-8"))
VARIANTS = [variant["name"] for variant in MANIFEST["variants"]]
OPTIONS = {name: option["default"] for name, option in MANIFEST["options"].items()}
SAME = 32  # tokens that an unquantized artefact and transformers have to have in common


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_convert", HERE / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = _load()


def convert(source: Path, folder: Path, variants: list[str], job: Job, **options: Any) -> None:
    for variant in variants:
        (folder / variant).mkdir(parents=True)
        plugin.convert(source, folder / variant, variant, OPTIONS | options, job)


def tokens(artefact: Path, folder: Path, count: int = SAME) -> list[int]:
    """What onnxruntime says after the prompt, with the artefact's cache."""
    (model,) = (artefact / "onnx").glob("*.onnx")
    result = folder / "tokens.json"
    command = [model, artefact / "tokenizer.json", result, plugin.PROMPT, str(count), "2"]
    subprocess.run([sys.executable, "-I", HERE / "generate.py", *command], check=True)
    return json.loads(result.read_bytes())["ids"]


def reference(source: Path, prompt: list[int], count: int = SAME) -> list[int]:
    """What transformers says, in float32 and without a cache."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # a tiny model gains nothing by more
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    seen = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            seen.append(int(model(torch.tensor([seen]), use_cache=False).logits[0, -1].argmax()))
    return seen[len(prompt) :]


def prompt(source: Path) -> list[int]:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(source / "tokenizer.json")).encode(plugin.PROMPT).ids


def headers(source: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in source.glob("*.safetensors"):
        with path.open("rb") as file:
            found |= json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found.pop("__metadata__", None)
    return found


def estimate(source: Path, variant: str, **options: Any) -> dict[str, int]:
    config = json.loads((source / "config.json").read_bytes())
    sizes = {path.name: path.stat().st_size for path in source.iterdir()}
    return plugin.estimate(config, sizes, headers(source), variant, OPTIONS | options)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.write("qwen3-0.6b", tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def converted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """Every variant made by one job: the folder of outputs, and the job."""
    folder = tmp_path_factory.mktemp("converted")
    job = Job(folder / "scratch")
    convert(tiny, folder, VARIANTS, job)
    return folder, job


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_runs_and_costs_what_was_said(
    variant: str, tiny: Path, converted: tuple[Path, Job], tmp_path: Path
) -> None:
    folder, _ = converted
    seen = plugin.check(folder / variant, Job(tmp_path / "scratch"))
    assert seen["tokens"] == plugin.TOKENS
    assert seen["text"]
    assert seen["runtime"].startswith("onnxruntime ")
    assert (folder / variant / "onnx" / layout.FILES[variant]).exists()
    assert estimate(tiny, variant)["size"] == pytest.approx(size(folder / variant), rel=0.03)


def test_unquantized_variants_say_what_transformers_says(
    tiny: Path, converted: tuple[Path, Job], tmp_path: Path
) -> None:
    folder, _ = converted
    expected = reference(tiny, prompt(tiny))
    for variant in ("fp32", "fp16"):
        assert tokens(folder / variant, tmp_path) == expected
    # Where half precision could not tell positions apart.
    exact = logits(folder / "fp32", 3000)
    assert np.abs(logits(folder / "fp16", 3000) - exact).max() < 0.1 * exact.std()


def test_quantized_variants_compute_nearly_the_same(converted: tuple[Path, Job]) -> None:
    folder, _ = converted
    exact = logits(folder / "fp32")
    # The weights are noise, the worst that a quantizer can get: 4 bits keep nine tenths of it.
    for variant, least in {"int8": 0.98, "uint8": 0.98, "q4": 0.85, "q4f16": 0.85}.items():
        assert np.corrcoef(logits(folder / variant).ravel(), exact.ravel())[0, 1] > least


def logits(artefact: Path, first: int = 0) -> np.ndarray:
    """The logits of twenty tokens at positions from `first`."""
    import onnxruntime

    (path,) = (artefact / "onnx").glob("*.onnx")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), settings, ["CPUExecutionProvider"])
    ids = np.arange(300, 320)[None]
    given: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(first, first + 20)[None],
    }
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            half = value.type == "tensor(float16)"
            shape = (1, value.shape[1], 0, value.shape[3])
            given[value.name] = np.zeros(shape, np.float16 if half else np.float32)
    return session.run(["logits"], given)[0]


def test_one_export_for_all_variants_and_one_configuration(converted: tuple[Path, Job]) -> None:
    folder, job = converted
    assert sum("export.py" in command for command in job.ran) == 1
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert len({(folder / variant / name).read_bytes() for variant in VARIANTS}) == 1
    settings = json.loads((folder / "q4" / "tokenizer_config.json").read_bytes())
    assert settings["chat_template"]
    before = 0.0
    for done, message in job.reports:
        assert before <= done <= 1.0
        before = 0.0 if "is written" in message else done


def test_the_same_bytes_again(tiny: Path, converted: tuple[Path, Job], tmp_path: Path) -> None:
    folder, _ = converted
    convert(tiny, tmp_path / "again", ["q4", "fp32"], Job(tmp_path / "scratch"))
    for variant in ("q4", "fp32"):
        for path in (folder / variant).rglob("*"):
            if path.is_file():
                other = tmp_path / "again" / variant / path.relative_to(folder / variant)
                assert other.read_bytes() == path.read_bytes(), path.name


def test_data_files_beside(
    tiny: Path,
    converted: tuple[Path, Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, job = converted
    monkeypatch.setattr(layout, "SINGLE", 1_000_000)
    monkeypatch.setattr(layout, "CHUNK", 8_000_000)
    convert(tiny, tmp_path, ["fp32"], job)
    names = sorted(path.name for path in (tmp_path / "fp32" / "onnx").iterdir())
    assert names == ["model.onnx", "model.onnx_data", "model.onnx_data_1"]
    told = json.loads((tmp_path / "fp32" / "config.json").read_bytes())["transformers.js_config"]
    assert told["use_external_data_format"]["model.onnx"] == 2
    assert told["use_external_data_format"]["model_q4.onnx"] == 1
    assert np.array_equal(logits(tmp_path / "fp32"), logits(folder / "fp32"))
    assert estimate(tiny, "fp32")["size"] == pytest.approx(size(tmp_path / "fp32"), rel=0.03)


@pytest.mark.parametrize("bits", [4, 16])
def test_bits_of_the_embedding(
    bits: int, tiny: Path, converted: tuple[Path, Job], tmp_path: Path
) -> None:
    folder, job = converted
    convert(tiny, tmp_path, ["q4"], job, embedding_bits=bits)
    assert np.isfinite(logits(tmp_path / "q4")).all()
    real = size(tmp_path / "q4")
    assert (real < size(folder / "q4")) == (bits == 4)
    assert estimate(tiny, "q4", embedding_bits=bits)["size"] == pytest.approx(real, rel=0.03)


def test_bitnet_from_packed_weights(tmp_path: Path) -> None:
    """Against transformers with the weights unpacked, and without its rounding of activations."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from weights import Weights

    source = zoo.write("bitnet-b1.58-2b", tmp_path / "source", layers=2)
    convert(source, tmp_path, ["fp32", "fp16", "q4", "int8"], Job(tmp_path / "scratch"))
    settings = json.loads((source / "config.json").read_bytes())
    weights = Weights(source, settings)
    settings.pop("quantization_config")
    settings.pop("auto_map")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).float().eval()
    for name, parameter in model.named_parameters():
        values = np.concatenate(list(weights.floats(name))).reshape(parameter.shape)
        if weights.ternary(name):
            (scale,) = weights.floats(f"{name}_scale")
            values = values * scale
        parameter.data = torch.from_numpy(values)
    with torch.no_grad():
        expected = model(torch.arange(300, 320)[None]).logits.numpy()
    assert np.abs(logits(tmp_path / "fp32") - expected).max() < 1e-3
    assert np.abs(logits(tmp_path / "fp16") - expected).max() < 0.1 * expected.std()
    # The ternary weights are exact in every variant; the embedding is not.
    assert np.corrcoef(logits(tmp_path / "q4").ravel(), expected.ravel())[0, 1] > 0.99
    assert np.corrcoef(logits(tmp_path / "int8").ravel(), expected.ravel())[0, 1] > 0.98
    for variant in ("fp32", "fp16", "q4", "int8"):
        real = size(tmp_path / variant)
        assert estimate(source, variant)["size"] == pytest.approx(real, rel=0.03)


def test_longrope_follows_the_length(tmp_path: Path) -> None:
    """Phi-4-mini, whose graph has to know the short factors and the long ones."""
    import torch
    from transformers import AutoModelForCausalLM

    source = zoo.write("phi-4-mini", tmp_path / "source", layers=2)
    convert(source, tmp_path, ["fp32", "fp16"], Job(tmp_path / "scratch"))
    assert "auto_map" not in json.loads((tmp_path / "fp32" / "config.json").read_bytes())
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    for first in (0, 5000):
        places = torch.arange(first, first + 20)[None]
        with torch.no_grad():
            expected = model(torch.arange(300, 320)[None], position_ids=places).logits.numpy()
        assert np.abs(logits(tmp_path / "fp32", first) - expected).max() < 1e-3
        half = logits(tmp_path / "fp16", first)
        assert np.abs(half - expected).max() < 0.1 * expected.std()


def test_gemma_from_tokenizer_model_alone(tmp_path: Path) -> None:
    source = zoo.write("gemma-3-1b", tmp_path / "source", tokenizer="model", layers=6)
    folder = tmp_path / "made"
    convert(source, folder, ["fp32", "q4f16"], Job(tmp_path / "scratch"))
    zoo.write("gemma-3-1b", tmp_path / "both", tokenizer="json", layers=1)
    start = prompt(tmp_path / "both")
    assert prompt(folder / "fp32")[-3:] == start[-3:]
    expected = reference(source, prompt(folder / "fp32"))
    assert tokens(folder / "fp32", tmp_path) == expected
    assert tokens(folder / "q4f16", tmp_path, 4)
    optimum_generates(folder / "fp32", prompt(folder / "fp32"), expected[:8])
    for variant in ("fp32", "q4f16"):
        assert estimate(source, variant)["size"] == pytest.approx(size(folder / variant), rel=0.03)


def optimum_generates(artefact: Path, start: list[int], expected: list[int]) -> None:
    """optimum's own class loads the artefact and says the same."""
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    model = ORTModelForCausalLM.from_pretrained(artefact, subfolder="onnx", file_name="model.onnx")
    given = torch.tensor([start])
    made = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        min_new_tokens=len(expected),
        max_new_tokens=len(expected),
    )
    assert made[0, len(start) :].tolist() == expected


def test_integers_are_onnxruntimes(tiny: Path) -> None:
    from onnxruntime.quantization.quant_utils import QuantType, quantize_data
    from quantize import Rows
    from weights import Weights

    weights = Weights(tiny, {})
    name = "model.layers.0.mlp.up_proj.weight"
    matrix = weights.rows(name, 0, weights.shape(name)[0])
    for signed, kind in ((True, QuantType.QInt8), (False, QuantType.QUInt8)):
        rows = Rows(weights, name, signed)
        codes = np.concatenate(list(rows.codes()))
        (scales,), (zeros,) = rows.scales(), rows.zeros()
        for row in range(0, len(matrix), 50):
            theirs = quantize_data(matrix[row], kind.tensor_type, signed)
            assert scales[row] == theirs[1]
            assert zeros[row] == theirs[0]
            assert np.array_equal(codes[:, row], theirs[2])


def test_manifest_and_code_have_the_same_variants() -> None:
    assert list(layout.FILES) == VARIANTS


def test_architectures_are_those_of_the_tools() -> None:
    import optimum.exporters.onnx.model_configs  # noqa: F401
    from optimum.exporters.tasks import TasksManager
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for name, kind in accept.KNOWN.items():
        theirs = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
        assert name == theirs
    for kind in accept.OPTIMUM.values():
        known = TasksManager.get_supported_tasks_for_model_type(
            kind, "onnx", library_name="transformers"
        )
        assert "text-generation-with-past" in known


@pytest.mark.parametrize("name", zoo.MODELS)
def test_supported(name: str) -> None:
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    assert plugin.supports(zoo.config(name), files) is None


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("no tokenizer", "tokenizer.json"),
        ("encoder only", "BertModel"),
        ("encoder and decoder", "T5"),
        ("unknown architecture", "NovelForCausalLM"),
        ("custom code", "never run"),
        *((method, method) for method in zoo.QUANTIZED),
    ],
)
def test_refused(what: str, named: str, tmp_path: Path) -> None:
    source = zoo.write_bad(what, tmp_path / "source")
    config = json.loads((source / "config.json").read_bytes())
    reason = plugin.supports(config, [path.name for path in source.iterdir()])
    assert reason is not None
    assert named in reason
    with pytest.raises(Failure) as raised:
        plugin.convert(source, tmp_path, "q4", OPTIONS, Job(tmp_path / "scratch"))
    assert raised.value.message == reason
    assert raised.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": None}, "architecture"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}, "mixture"),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"},
            "more than text",
        ),
        ({"model_type": "mistral"}, "model_type"),
        ({"architectures": ["PhiForCausalLM"], "model_type": "phi"}, "share keys"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
    ],
)
def test_refused_by_configuration(change: dict[str, Any], named: str) -> None:
    reason = plugin.supports(
        zoo.config("llama-3.2-1b") | change, ["model.safetensors", "tokenizer.json"]
    )
    assert reason is not None
    assert named in reason


def test_answers_wait_for_no_large_package(tiny: Path) -> None:
    code = """
import json, sys
sys.path.insert(0, ".")
import convert
config, files, tensors, options = json.load(sys.stdin)
assert convert.supports(config, list(files)) is None
for variant in convert.FILES:
    convert.estimate(config, files, tensors, variant, options)
assert not {"numpy", "torch", "onnx", "onnxruntime"} & set(sys.modules)
"""
    config = json.loads((tiny / "config.json").read_bytes())
    files = {path.name: path.stat().st_size for path in tiny.iterdir()}
    subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=HERE,
        check=True,
        input=json.dumps([config, files, headers(tiny), OPTIONS]).encode(),
    )


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    source = zoo.write("llama-3.2-1b", tmp_path / "source", layers=1, shards=2)
    (source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Failure) as raised:
        convert(source, tmp_path, ["q4"], Job(tmp_path / "scratch"))
    assert raised.value.kind == "corrupt_weights"
    assert "model." in raised.value.message


@pytest.mark.parametrize("length", [0, 5, 100, 100_000])
def test_truncated_weights(length: int, tmp_path: Path) -> None:
    source = zoo.write("llama-3.2-1b", tmp_path / "source", layers=1)
    os.truncate(source / "model.safetensors", length)
    with pytest.raises(Failure) as raised:
        convert(source, tmp_path, ["q4"], Job(tmp_path / "scratch"))
    assert raised.value.kind == "corrupt_weights"
    assert "model.safetensors" in raised.value.message


def test_check_refuses_what_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model_q4.onnx").write_bytes(b"no model")
    zoo.write("llama-3.2-1b", tmp_path / "source", layers=1)
    (tmp_path / "source" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(Failure) as raised:
        plugin.check(tmp_path, Job(tmp_path / "scratch"))
    assert raised.value.kind == "check_failed"
    assert "model_q4.onnx" in raised.value.message
