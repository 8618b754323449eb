"""Tiny models through the real tools, in the plugin's own environment: `python -m pytest .`"""

import importlib.util
import json
import os
import re
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

import container  # noqa: E402
import llama  # noqa: E402
import mixture  # noqa: E402
import source as models  # noqa: E402
from job import Failure, Job  # noqa: E402

MANIFEST = tomllib.loads((HERE / "plugin.toml").read_text(encoding="utf-8"))
VARIANTS = [variant["name"] for variant in MANIFEST["variants"]]
SAMPLE = SAMPLES / "slmhub" / "stdlib-llama-3m"
NEVER = {"imatrix": "never"}
PLAIN = [name for name in VARIANTS if mixture.matrix_use(name, NEVER) == "no"]
WITH_MATRIX = [name for name in VARIANTS if mixture.matrix_use(name, {}) != "no"]
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
BITNET = {
    "architectures": ["BitNetForCausalLM"],
    "hidden_act": "relu2",
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
}
FILES = ["config.json", "model.safetensors", "tokenizer.json"]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gguf_convert", HERE / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = _load()


def write_model(
    folder: Path, *, dtype: str = "bfloat16", width: int = 256, tokenizer: str = "sentencepiece"
) -> Path:
    """A random Llama of two layers with a home-trained tokenizer, as a Hugging Face repo has it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    words = ["the", "small", "model", "reads", "a", "line", "and", "writes", "the", "next", "one"]
    lines = [" ".join(words[i % 7 :] + words[: i % 11]) for i in range(200)]
    vocabulary = TRAIN[tokenizer](folder, lines)
    torch.manual_seed(0)
    inner, heads = 2 * width, 4

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 0.05).to(getattr(torch, dtype))

    tensors = {
        "model.embed_tokens.weight": random(vocabulary, width),
        "model.norm.weight": random(width) + 1,
        "lm_head.weight": random(vocabulary, width),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = random(width, width)
        for name, shape in {
            "gate": (inner, width),
            "up": (inner, width),
            "down": (width, inner),
        }.items():
            tensors[f"{prefix}mlp.{name}_proj.weight"] = random(*shape)
        for name in ("input", "post_attention"):
            tensors[f"{prefix}{name}_layernorm.weight"] = random(width) + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocabulary,
        "torch_dtype": dtype,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _train_sentencepiece(folder: Path, lines: list[str]) -> int:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=300,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    return processor.vocab_size()


def _train_byte_pairs(folder: Path, lines: list[str]) -> int:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(lines, vocab_size=300)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tokenizer.get_vocab_size()


TRAIN = {"sentencepiece": _train_sentencepiece, "byte pairs": _train_byte_pairs}


def bare_convert(source: Path, target: Path, outtype: str) -> subprocess.CompletedProcess[str]:
    """What a person types who has llama.cpp and no hub."""
    script = models.llama_tree() / "convert_hf_to_gguf.py"
    return subprocess.run(
        [sys.executable, script, source, "--outfile", target, "--outtype", outtype],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(target.parent / "home")},
    )


BARE_QUANTIZE = """
import sys
from cyllama.llama.llama_cpp import LlamaModelQuantizeParams, model_quantize
base, folder, *types = sys.argv[1:]
for each in types:
    name, number = each.split("=")
    parameters = LlamaModelQuantizeParams()
    parameters.ftype = int(number)
    parameters.nthread = 1
    model_quantize(base, f"{folder}/{name}.gguf", parameters)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def converted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """Every variant without a matrix, by one job: the folder of outputs, and the job."""
    folder = tmp_path_factory.mktemp("converted")
    job = Job(folder / "scratch")
    for variant in PLAIN:
        (folder / variant).mkdir()
        plugin.convert(tiny, folder / variant, variant, NEVER, job)
    return folder, job


@pytest.fixture(scope="module")
def bare(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant made by the bare tools, on one thread."""
    folder = tmp_path_factory.mktemp("bare")
    for name in plugin.FLOATS:
        bare_convert(tiny, folder / f"{name}.gguf", name.lower()).check_returncode()
    types = [f"{name}={llama.FILE_TYPES[name]}" for name in PLAIN if name in llama.FILE_TYPES]
    command = [sys.executable, "-I", "-c", BARE_QUANTIZE, folder / "BF16.gguf", folder, *types]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("variant", PLAIN)
def test_variant_equals_the_bare_tools_and_runs(
    variant: str, converted: tuple[Path, Job], bare: Path, tmp_path: Path
) -> None:
    folder, _ = converted
    (made,) = (folder / variant).iterdir()
    assert made.name == f"acme_tiny-{variant}.gguf"
    assert made.read_bytes() == (bare / f"{variant}.gguf").read_bytes()

    seen = plugin.check(folder / variant, Job(tmp_path / "scratch"))
    assert seen["tokens"] == plugin.TOKENS
    assert seen["text"]
    assert seen["tokens_per_second"] > 0
    assert re.fullmatch(r"llama\.cpp b\d+ \(cyllama [\d.]+\)", seen["runtime"])


def test_one_base_for_all_variants(converted: tuple[Path, Job]) -> None:
    folder, job = converted
    outtypes = [line.rsplit(maxsplit=1)[1] for line in job.ran if "converter.py" in line]
    assert outtypes == ["f32", "f16", "bf16"]
    assert (job.scratch / "base-BF16.gguf").exists()
    assert (folder / "BF16" / "acme_tiny-BF16.gguf").stat().st_nlink == 1


def test_progress_only_grows(converted: tuple[Path, Job]) -> None:
    _, job = converted
    assert sum(done == 1.0 and "is written" in message for done, message in job.reports) == len(
        PLAIN
    )
    before = 0.0
    for done, message in job.reports:
        assert before <= done <= 1.0
        before = 0.0 if "is written" in message else done


@pytest.mark.parametrize(("dtype", "base"), [("float32", "F32"), ("float16", "F16")])
def test_base_is_in_the_float_type_of_the_source(dtype: str, base: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny", dtype=dtype)
    job = Job(tmp_path / "scratch")
    plugin.convert(source, tmp_path, "Q8_0", {}, job)
    assert (job.scratch / f"base-{base}.gguf").exists()
    assert (tmp_path / "acme_tiny-Q8_0.gguf").exists()


def test_rows_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny", width=288)
    job = Job(tmp_path / "scratch")
    output = tmp_path / "output"
    output.mkdir()
    plugin.convert(source, output, "Q4_K_M", {}, job)
    assert "tensors do not fit its blocks" in job.reports[-1][1]
    assert plugin.check(output, job)["tokens"] == plugin.TOKENS


def headers(source: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a model, as the host gives them to `estimate`."""
    raw = (source / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    header.pop("__metadata__", None)
    return {name: {"dtype": one["dtype"], "shape": one["shape"]} for name, one in header.items()}


def said(source: Path, variant: str, options: dict[str, Any]) -> dict[str, int]:
    config = json.loads((source / "config.json").read_bytes())
    files = {path.name: path.stat().st_size for path in source.iterdir()}
    return plugin.estimate(config, files, headers(source), variant, options)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def with_base(scratch: Path, before: Job) -> Job:
    """A job that has the base of the job before, so that it need not be written again."""
    job = Job(scratch)
    os.link(before.scratch / "base-BF16.gguf", scratch / "base-BF16.gguf")
    return job


def test_estimate_of_plain_variants(tiny: Path, converted: tuple[Path, Job]) -> None:
    folder, job = converted
    for variant in PLAIN:
        figures = said(tiny, variant, NEVER)
        assert figures["size"] == pytest.approx(bytes_in(folder / variant), rel=0.03), variant
        if variant not in ("F32", "F16"):
            base = (job.scratch / "base-BF16.gguf").stat().st_size
            assert figures["scratch"] == pytest.approx(base, rel=0.03)


@pytest.fixture(scope="module")
def measured(
    tiny: Path,
    converted: tuple[Path, Job],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Job]:
    """Every variant that takes a matrix, by one job."""
    folder = tmp_path_factory.mktemp("measured")
    job = with_base(folder / "scratch", converted[1])
    for variant in WITH_MATRIX:
        (folder / variant).mkdir()
        plugin.convert(tiny, folder / variant, variant, {}, job)
    return folder, job


def test_one_matrix_for_all_variants(tiny: Path, measured: tuple[Path, Job]) -> None:
    folder, job = measured
    name = "acme_tiny-imatrix.gguf"
    matrix = (job.scratch / name).read_bytes()
    for variant in WITH_MATRIX:
        names = sorted(path.name for path in (folder / variant).iterdir())
        assert names == [f"acme_tiny-{variant}.gguf", name]
        assert (folder / variant / name).read_bytes() == matrix
        figures = said(tiny, variant, {})
        assert figures["size"] == pytest.approx(bytes_in(folder / variant), rel=0.03), variant
        header = container.read(folder / variant / names[0])
        assert header.keys["quantize.imatrix.file"] == name
        assert header.keys["quantize.imatrix.dataset"] == "calibration.txt"
    keys = container.read(job.scratch / name).keys
    assert keys["general.type"] == "imatrix"
    assert keys["imatrix.chunk_size"] == 128  # all the positions that the model has
    assert 8 <= keys["imatrix.chunk_count"] <= 32


@pytest.mark.parametrize("variant", ["IQ1_S", "IQ3_XXS", "Q2_K"])
def test_variant_with_a_matrix_runs(
    variant: str, measured: tuple[Path, Job], tmp_path: Path
) -> None:
    folder, _ = measured
    assert plugin.check(folder / variant, Job(tmp_path / "scratch"))["tokens"] == plugin.TOKENS


def test_matrix_of_an_earlier_job_is_taken(
    tiny: Path, measured: tuple[Path, Job], tmp_path: Path
) -> None:
    """Another job, one thread, and the matrix from before: the same bytes."""
    folder, before = measured
    job = with_base(tmp_path / "scratch", before)
    (job.earlier / "IQ3_S").symlink_to(folder / "IQ3_S")
    output = tmp_path / "output"
    output.mkdir()
    job.threads = 1
    plugin.convert(tiny, output, "Q2_K", {}, job)
    assert not any("importance" in message for _, message in job.reports)
    for path in output.iterdir():
        assert path.read_bytes() == (folder / "Q2_K" / path.name).read_bytes()


def test_matrix_is_the_same_on_any_number_of_threads(
    measured: tuple[Path, Job], tmp_path: Path
) -> None:
    _, job = measured
    again = tmp_path / "again.gguf"
    command = [sys.executable, "-I", HERE / "importance.py", job.scratch / "base-BF16.gguf"]
    command += [HERE / "calibration.txt", again, tmp_path / "progress", "1"]
    subprocess.run(command, check=True, capture_output=True)
    assert again.read_bytes() == (job.scratch / "acme_tiny-imatrix.gguf").read_bytes()


PERPLEXITY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from importance import BATCH, Reader
for name in sys.argv[3:]:
    reader, total, count = Reader(Path(name), 2, collect=False), 0.0, 0
    for tokens in reader.chunks(Path(sys.argv[2]).read_text())[:16]:
        memory = reader.library.llama_get_memory(reader.context)
        reader.library.llama_memory_clear(memory, True)
        for start in range(0, len(tokens), BATCH):
            view = reader._batch(tokens[start : start + BATCH], start)
            logits = np.ctypeslib.as_array(view, (BATCH, reader.size)).astype(np.float64)
            following = tokens[start + 1 : start + 1 + BATCH]
            rows = logits[: len(following)]
            top = rows.max(1)
            likely = top + np.log(np.exp(rows - top[:, None]).sum(1))
            total += (likely - rows[range(len(following)), following]).sum()
            count += len(following)
    print(np.exp(total / count))
"""


def test_matrix_improves_a_trained_model(tmp_path: Path) -> None:
    """Perplexity of the sample on code of its kind that the calibration text does not hold."""
    job = Job(tmp_path / "scratch")
    files = []
    for variant in ("IQ3_S", "Q2_K"):
        for name, options in {"without": NEVER, "with": {}}.items():
            output = tmp_path / name
            output.mkdir(exist_ok=True)
            plugin.convert(SAMPLE, output, variant, options, job)
            files.append(output / f"acme_tiny-{variant}.gguf")
    keys = container.read(job.scratch / "acme_tiny-imatrix.gguf").keys
    assert keys["imatrix.chunk_size"] == 512
    assert said(SAMPLE, "Q2_K", NEVER)["size"] == pytest.approx(files[2].stat().st_size, rel=0.03)
    text = Path(json.__file__).parent.parent / "argparse.py"
    command = [sys.executable, "-I", "-c", PERPLEXITY, HERE, text, *files]
    seen = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    plain_iq3, with_iq3, plain_q2, with_q2 = map(float, seen)
    assert with_iq3 < plain_iq3
    assert with_q2 < plain_q2


def test_embeddings_at_q8(tiny: Path, converted: tuple[Path, Job], tmp_path: Path) -> None:
    job = with_base(tmp_path / "scratch", converted[1])
    options = NEVER | {"embedding_q8_0": True}
    output = tmp_path / "output"
    output.mkdir()
    plugin.convert(tiny, output, "Q4_K_M", options, job)
    (made,) = output.iterdir()
    q8_0 = llama.TENSOR_TYPES["Q8_0"]
    assert container.read(made).tensors["token_embd.weight"].kind == q8_0
    assert said(tiny, "Q4_K_M", options)["size"] == pytest.approx(bytes_in(output), rel=0.03)


def test_variant_that_can_do_without_a_matrix_does(
    tiny: Path,
    converted: tuple[Path, Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = with_base(tmp_path / "scratch", converted[1])
    real = job.run

    def run(command: list[str], **rest: Any) -> list[str]:
        if "importance.py" in " ".join(command):
            raise subprocess.CalledProcessError(1, command, "ValueError: no such model")
        return real(command, **rest)

    monkeypatch.setattr(job, "run", run)
    plugin.convert(tiny, tmp_path, "Q2_K", {}, job)
    assert "without an importance matrix" in job.reports[-1][1]
    with pytest.raises(Failure) as raised:
        plugin.convert(tiny, tmp_path, "IQ2_XS", {}, job)
    assert raised.value.kind == "no_importance_matrix"


QUANTIZE_DRY = """
import sys
sys.path.insert(0, sys.argv[1])
import llama
from cyllama.llama import llama_cpp
from pathlib import Path
for name, number in llama.FILE_TYPES.items():
    for matrix in ("", sys.argv[3]):
        parameters = llama_cpp.LlamaModelQuantizeParams()
        parameters.ftype, parameters.nthread, parameters.dry_run = number, 1, True
        kept = llama._give(parameters, Path(matrix)) if matrix else None
        print("FILE", name, int(bool(matrix)), file=sys.stderr, flush=True)
        llama_cpp.model_quantize(sys.argv[2], "/dev/null", parameters)
"""


@pytest.mark.parametrize("heads", [(8, 8, 256, 0), (8, 2, 256, 0), (6, 3, 288, 0), (4, 2, 256, 4)])
def test_types_are_the_quantizers(heads: tuple[int, int, int, int], tmp_path: Path) -> None:
    """Every file type, with and without a matrix, on bases of several shapes written here.

    The quantizer only says what it would do.
    """
    queries, groups, width, experts = heads
    base, made = write_base(tmp_path, queries, groups, width, experts)
    command = [sys.executable, "-I", "-c", QUANTIZE_DRY, HERE, base, tmp_path / "matrix.gguf"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    files = (done.stdout + done.stderr).split("FILE ")[1:]
    assert len(files) == 2 * len(llama.FILE_TYPES)
    for lines in files:
        variant, matrix = lines.split(maxsplit=2)[:2]
        found = dict(re.findall(r"\[ *\d+/ *\d+\] (\S+) .*? MiB \((\w+)\)", lines))
        plan = mixture.Plan(variant, 16, queries // groups, experts, "llama", matrix == "1")
        types = mixture.Mixture(plan, made).types()
        expected = {name: kind for name, kind in types.items() if kind != "F32"}
        assert {name: kind.upper() for name, kind in found.items()} == expected, variant


def write_base(
    folder: Path, queries: int, groups: int, width: int, experts: int
) -> tuple[Path, list[mixture.Tensor]]:
    """A base of 16 layers of zeros, and a matrix of ones for it."""
    from array import array

    inner, keys = 2 * width, width // queries * groups
    shapes: dict[str, tuple[int, ...]] = {
        "output.weight": (64, width),
        "output_norm.weight": (width,),
        "token_embd.weight": (64, width),
    }
    many = (experts,) if experts else ()
    end = "_exps.weight" if experts else ".weight"
    for layer in range(16):
        block = f"blk.{layer}."
        shapes |= {
            f"{block}attn_norm.weight": (width,),
            f"{block}attn_q.weight": (width, width),
            f"{block}attn_k.weight": (keys, width),
            f"{block}attn_v.weight": (keys, width),
            f"{block}attn_output.weight": (width, width),
            f"{block}ffn_gate{end}": (*many, inner, width),
            f"{block}ffn_up{end}": (*many, inner, width),
            f"{block}ffn_down{end}": (*many, width, inner),
        }
        if experts:
            shapes[f"{block}ffn_gate_inp.weight"] = (experts, width)
    sys.path.insert(0, str(models.llama_tree() / "gguf-py"))
    import gguf

    writer = gguf.GGUFWriter(folder / "base.gguf", "llama")
    writer.add_block_count(16)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(queries)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(1e-5)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    import numpy as np

    for name, shape in shapes.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors: dict[str, tuple[array, int]] = {}
    for name, shape in shapes.items():
        if len(shape) > 1 and name.startswith("blk.") and "gate_inp" not in name:
            matrices = shape[0] if len(shape) == 3 else 1
            sums = array("f", [1.0]) * (matrices * shape[-1])
            tensors[f"{name}.in_sum2"] = (sums, shape[-1])
            tensors[f"{name}.counts"] = (array("f", [1.0]) * matrices, 1)
    keys = {"imatrix.datasets": ["ones"], "imatrix.chunk_count": 1, "imatrix.chunk_size": 512}
    container.write(folder / "matrix.gguf", {"general.type": "imatrix"} | keys, tensors)
    return folder / "base.gguf", [mixture.Tensor(n, s, "F32") for n, s in shapes.items()]


def test_manifest_and_code_have_the_same_variants() -> None:
    assert sorted(VARIANTS) == sorted([*plugin.FLOATS, *llama.FILE_TYPES])


def test_file_types_are_llama_cpps() -> None:
    header = (models.llama_tree() / "include" / "llama.h").read_text(encoding="utf-8")
    theirs = {name: int(number) for name, number in re.findall(r"MOSTLY_(\w+)\s*= (\d+)", header)}
    assert llama.FILE_TYPES.items() <= theirs.items()


def test_architectures_are_those_the_converter_registers() -> None:
    """The list is read, not run: here the converter itself runs, and has to say the same."""
    code = """
import json, sys
sys.path[:0] = ["gguf-py", "."]
import conversion
conversion.load_all_models()
print(json.dumps(list(conversion.ModelBase._model_classes[conversion.ModelType.TEXT])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=models.llama_tree(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(models.architectures()) == set(json.loads(done.stdout))


def test_llama_cpp_computes_bitnet_with_silu() -> None:
    """The reason why BitNet is refused: when this fails, look whether it can be taken now."""
    graph = (models.llama_tree() / "src" / "models" / "bitnet.cpp").read_text(encoding="utf-8")
    assert "LLM_FFN_SILU, LLM_FFN_PAR" in graph
    assert "RELU" not in graph
    code = (models.llama_tree() / "conversion" / "base.py").read_text(encoding="utf-8")
    assert "return data / scale.float()" in code


def test_packed_weights_are_those_the_converter_unpacks() -> None:
    code = (models.llama_tree() / "conversion" / "base.py").read_text(encoding="utf-8")
    assert set(re.findall(r'quant_method == "([\w-]+)"', code)) == models.UNPACKED


@pytest.mark.parametrize(
    "config",
    [
        QWEN3,
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["Phi3ForCausalLM"], "auto_map": {"AutoConfig": "configuration_phi3.X"}},
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}},
        {"architectures": ["Unheard"], "text_config": {"architectures": ["Qwen3ForCausalLM"]}},
        QWEN3 | {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_supported(config: dict[str, Any]) -> None:
    assert plugin.supports(config, FILES) is None


@pytest.mark.parametrize(
    ("config", "files", "named"),
    [
        ({"architectures": ["UnheardForCausalLM"]}, FILES, "UnheardForCausalLM"),
        ({"architectures": ["UnheardModel"], "auto_map": {}}, FILES, "never run"),
        ({}, FILES, "architecture"),
        ({"architectures": ["BertModel"]}, FILES, "BertModel encodes"),
        (BITNET, FILES, "square of ReLU"),
        (BITNET | {"architectures": ["LlamaForCausalLM"]}, FILES, "autobitlinear"),
        (QWEN3 | {"quantization_config": {"quant_method": "awq"}}, FILES, "awq"),
        (QWEN3, ["config.json", "model.safetensors"], "tokenizer"),
        (QWEN3, ["config.json", "adapter.safetensors", "tokenizer.json"], "model*.safetensors"),
        (
            QWEN3,
            ["tokenizer.model", "model-00001-of-00003.safetensors"],
            "model-00002-of-00003.safetensors",
        ),
    ],
)
def test_refused_by_name(config: dict[str, Any], files: list[str], named: str) -> None:
    reason = plugin.supports(config, files)
    assert reason is not None
    assert named in reason


def test_an_answer_waits_for_no_large_package() -> None:
    code = "import sys; sys.path.insert(0, '.'); import convert; convert.supports({}, [])\n"
    code += 'assert not {"numpy", "gguf", "torch", "llama_cpp"} & set(sys.modules)'
    subprocess.run([sys.executable, "-I", "-c", code], cwd=HERE, check=True)


def refusal(source: Path, scratch: Path) -> Failure:
    with pytest.raises(Failure) as raised:
        plugin.convert(source, scratch.parent, "Q4_K_M", {}, Job(scratch))
    assert raised.value.hint
    return raised.value


def edit_config(source: Path, **values: Any) -> None:
    path = source / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | values), encoding="utf-8")


@pytest.mark.parametrize("name", ["phi-3.5-mini", "phi-4-mini", "olmo-2-1b"])
def test_what_the_converter_alone_leaves_out(name: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(models.llama_tree() / "gguf-py"))
    import gguf
    import zoo

    source = zoo.write(name, tmp_path / "source", width=128, layers=1)
    output = tmp_path / "output"
    output.mkdir()
    plugin.convert(source, output, "F16", {}, Job(tmp_path / "scratch"))
    (path,) = output.iterdir()
    reader = gguf.GGUFReader(path)
    assert reader.fields["tokenizer.ggml.model"].contents() == "llama"
    factors = {tensor.name: tensor.data.tolist() for tensor in reader.tensors}
    if name.startswith("phi"):
        scaling = json.loads((source / "config.json").read_bytes())["rope_scaling"]
        for length in ("long", "short"):
            written = factors[f"rope_factors_{length}.weight"]
            assert written == pytest.approx(scaling[f"{length}_factor"])


def test_unknown_architecture(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny")
    edit_config(source, architectures=["UnheardForCausalLM"])
    failure = refusal(source, tmp_path / "scratch")
    assert failure.kind == "unsupported_architecture"
    assert "UnheardForCausalLM" in failure.message


def test_unknown_tokenizer(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny", tokenizer="byte pairs")
    failure = refusal(source, tmp_path / "scratch")
    assert failure.kind == "unsupported_tokenizer"
    assert "PreTrainedTokenizerFast" in failure.message
    assert re.search(r"pre-tokenizer [0-9a-f]{64}", failure.message)


def test_damaged_tokenizer(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny")
    (source / "tokenizer.model").write_bytes(b"not a SentencePiece model")
    assert refusal(source, tmp_path / "scratch").kind == "unsupported_tokenizer"


@pytest.mark.parametrize("size", [0, 5, 100, 100_000])
def test_truncated_weights(size: int, tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny")
    os.truncate(source / "model.safetensors", size)
    failure = refusal(source, tmp_path / "scratch")
    assert failure.kind == "corrupt_weights"
    assert "model.safetensors" in failure.message


def test_tensor_that_the_architecture_does_not_have(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    source = write_model(tmp_path / "tiny")
    save_file({"model.surprise.weight": torch.zeros(8, 8)}, source / "model-extra.safetensors")
    failure = refusal(source, tmp_path / "scratch")
    assert failure.kind == "converter_failed"
    assert "model.surprise.weight" in failure.message


def test_code_of_the_model_does_not_run(tmp_path: Path) -> None:
    """The bare converter runs a tokenizer's own code; a job does not, even if the file is there."""
    import torch
    from safetensors.torch import save_file

    source = write_model(tmp_path / "tiny")
    edit_config(
        source,
        architectures=["QWenLMHeadModel"],
        model_type="qwen",
        seq_length=128,
        layer_norm_epsilon=1e-5,
    )
    save_file({"transformer.wte.weight": torch.zeros(8, 8)}, source / "model.safetensors")
    (source / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}),
        encoding="utf-8",
    )
    mark = tmp_path / "mark"
    (source / "tokenization_evil.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    assert refusal(source, tmp_path / "scratch").kind == "unsupported_tokenizer"
    assert not mark.exists()
    bare_convert(source, tmp_path / "bare.gguf", "bf16")
    assert mark.exists()


def test_check_refuses_what_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(Failure) as raised:
        plugin.check(tmp_path, Job(tmp_path / "scratch"))
    assert raised.value.kind == "check_failed"
    assert "broken.gguf" in raised.value.message


def test_a_killed_tool_is_said_to_lack_memory(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(subprocess.CalledProcessError) as raised:
        Job(tmp_path).run([sys.executable, "-c", code])
    assert plugin._shortage(raised.value).kind == "out_of_memory"
