"""Tiny models through the real tools, every variant, and what is refused."""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "samples")]

import accept  # noqa: E402
import convert as plugin  # noqa: E402
import source  # noqa: E402
import zoo  # noqa: E402
from job import Failure, Job  # noqa: E402

OPTIONS = {"group_size": 128, "ratio": 1.0, "awq": False, "scale_estimation": False}
VARIANTS = ["fp16", "int8", "int8-sym", "int4", "int4-sym"]


def make(model: Path, folder: Path, variant: str, scratch: Path, **options: Any) -> dict[str, Any]:
    """Convert and check; what the check saw, and the messages of both."""
    folder.mkdir(parents=True)
    job = Job(scratch, variant, threads=1)
    plugin.convert(model, folder, variant, OPTIONS | options, job)
    done = [done for done, _ in job.reports]
    assert done == sorted(done)
    return plugin.check(folder, job) | {"messages": {message for _, message in job.reports}}


def estimated(model: Path, variant: str, **options: Any) -> dict[str, int]:
    """What the plugin says beforehand."""
    tensors: dict[str, Any] = {}
    for path in source.weights_of(model):
        tensors |= source.header(path)
    files = {path.name: path.stat().st_size for path in model.iterdir()}
    config = json.loads((model / "config.json").read_bytes())
    return plugin.estimate(config, files, tensors, variant, OPTIONS | options)


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample model, in every variant, of one export."""
    folder = tmp_path_factory.mktemp("sample")
    for variant in VARIANTS:
        seen = make(zoo.SAMPLE, folder / variant, variant, folder / "scratch")
        assert seen["tokens"] == 16
        assert seen["text"].strip()
        assert seen["runtime"].startswith("OpenVINO GenAI 2026.4")
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_and_size(variant: str, sample: Path) -> None:
    names = {path.name for path in (sample / variant).iterdir()}
    graphs = {"openvino_model", "openvino_tokenizer", "openvino_detokenizer"}
    assert {f"{name}.{end}" for name in graphs for end in ("xml", "bin")} <= names
    assert {"openvino_config.json", "config.json", "generation_config.json"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= names
    size = sum(path.stat().st_size for path in (sample / variant).iterdir())
    assert estimated(zoo.SAMPLE, variant)["size"] == pytest.approx(size, rel=0.03)


def test_fp16_is_fp16(sample: Path) -> None:
    text = (sample / "fp16" / "openvino_model.xml").read_text("utf-8")
    assert "bf16" not in text
    assert 'element_type="f16"' in text


def test_nothing_of_the_machine_is_in_a_file(sample: Path) -> None:
    for path in sample.glob("*/*.xml"):
        text = path.read_text("utf-8")
        assert "+cpu" not in text
        assert str(sample) not in text


def test_again(sample: Path, tmp_path: Path) -> None:
    """The same bytes, of another export in another folder; a weight that is tied is stored."""
    for variant in ("fp16", "int4"):
        folder = tmp_path / variant
        folder.mkdir()
        job = Job(tmp_path / "scratch", variant, threads=1)
        plugin.convert(zoo.SAMPLE, folder, variant, OPTIONS, job)
        assert digests(folder) == digests(sample / variant)


def test_calibrated(sample: Path, tmp_path: Path) -> None:
    """Weighed by activations, in the groups that are asked for."""
    options = {"group_size": 32, "awq": True, "scale_estimation": True}
    seen = make(zoo.SAMPLE, tmp_path / "int4", "int4", sample / "scratch", **options)
    assert seen["tokens"] == 16
    assert {"applying data-aware awq", "applying scale estimation"} <= seen["messages"]
    said = json.loads((tmp_path / "int4" / "openvino_config.json").read_bytes())
    assert said["quantization_config"]["quant_method"] == "awq"
    size = sum(path.stat().st_size for path in (tmp_path / "int4").iterdir())
    assert estimated(zoo.SAMPLE, "int4", **options)["size"] == pytest.approx(size, rel=0.03)


def test_bitnet(tmp_path: Path) -> None:
    """Packed ternary weights; the sizes of groups that do not divide; only tokenizer.model."""
    model = zoo.write("bitnet-b1.58-2b", tmp_path / "model", layers=2, tokenizer="model")
    options = {"group_size": 64, "ratio": 0.6}
    make(model, tmp_path / "int4", "int4-sym", tmp_path / "scratch", **options)
    assert (tmp_path / "int4" / "tokenizer.json").exists()
    text = (tmp_path / "int4" / "openvino_model.xml").read_text("utf-8")
    assert 'element_type="i4"' in text
    assert 'element_type="u8"' in text
    config = json.loads((tmp_path / "int4" / "config.json").read_bytes())
    assert not config.keys() & {"quantization_config", "auto_map"}
    size = sum(path.stat().st_size for path in (tmp_path / "int4").iterdir())
    assert estimated(model, "int4-sym", **options)["size"] == pytest.approx(size, rel=0.03)


def test_gemma_3(tmp_path: Path) -> None:
    """Its embedding, which scales, is exported in FP32 beside the BF16 of all others."""
    model = zoo.write("gemma-3-1b", tmp_path / "model", layers=2)
    make(model, tmp_path / "fp16", "fp16", tmp_path / "scratch")
    assert "bf16" not in (tmp_path / "fp16" / "openvino_model.xml").read_text("utf-8")
    size = sum(path.stat().st_size for path in (tmp_path / "fp16").iterdir())
    assert estimated(model, "fp16")["size"] == pytest.approx(size, rel=0.03)


def test_the_list_of_architectures_is_the_tools() -> None:
    import optimum.exporters.openvino.model_configs  # noqa: F401 - it registers what it knows
    from optimum.exporters.tasks import TasksManager
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for name, kind in accept.KNOWN.items():
        assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] == name
        tasks = TasksManager.get_supported_tasks_for_model_type(
            kind, exporter="openvino", library_name="transformers"
        )
        assert "text-generation-with-past" in tasks


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_named_models_are_taken(name: str) -> None:
    config = zoo.config(name)
    assert plugin.supports(config, ["config.json", "model.safetensors", "tokenizer.json"]) is None
    assert plugin.supports(config, ["config.json", "model.safetensors", "tokenizer.model"]) is None


@pytest.mark.parametrize("what", sorted(set(zoo.BAD) - {"shard missing"}))
def test_bad_models_are_refused(what: str, tmp_path: Path) -> None:
    model = zoo.write_bad(what, tmp_path / "bad")
    config = json.loads((model / "config.json").read_bytes())
    reason = plugin.supports(config, [path.name for path in model.iterdir()])
    assert reason
    assert reason.count(".") >= 2


def test_damaged_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(zoo.SAMPLE, model)
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(Failure) as raised:
        make(model, tmp_path / "out", "int8", tmp_path / "scratch")
    assert raised.value.kind == "corrupt_weights"


def test_rope_as_transformers_5_spells_it() -> None:
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    }
    found = source.plain({"rope_parameters": rope, "auto_map": {}})
    assert found["rope_theta"] == 1e6
    assert found["rope_local_base_freq"] == 10000.0
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert "auto_map" not in found


def test_a_half_finished_export_is_not_used(tmp_path: Path) -> None:
    """What a killed job left is no export: it has another name."""
    left = tmp_path / "scratch" / "export.part"
    left.mkdir(parents=True)
    (left / "openvino_model.xml").write_text("half")
    model = tmp_path / "model"
    shutil.copytree(zoo.SAMPLE, model)
    for name in ("tokenizer.json", "tokenizer.model"):
        (model / name).write_bytes(b"no tokenizer")
    with pytest.raises(Failure) as raised:
        make(model, tmp_path / "out", "int8", tmp_path / "scratch")
    assert raised.value.kind == "unsupported_tokenizer"
    assert not (tmp_path / "scratch" / "export").exists()


def test_nobody_is_told_what_is_converted() -> None:
    """The tools report to their makers wherever this package is: it forks from a thread, too."""
    assert importlib.util.find_spec("openvino_telemetry") is None
