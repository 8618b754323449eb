"""The sample model is whole: its files, its shape, its card and its template agree."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

SAMPLES = Path(__file__).parents[2] / "samples"
MODEL = SAMPLES / "slmhub" / "stdlib-llama-3m"
LIMIT = 6_000_000
PARAMETERS = 2_885_888
FILES = [p for p in SAMPLES.rglob("*") if p.is_file() and p.suffix != ".pyc"]


def read(name: str) -> Any:
    return json.loads((MODEL / name).read_bytes())


@pytest.fixture(scope="module")
def header() -> dict[str, Any]:
    """The table of tensors at the head of the safetensors file."""
    with (MODEL / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        table: dict[str, Any] = json.loads(file.read(size))
    table.pop("__metadata__", None)
    return table


@pytest.fixture(scope="module")
def card() -> tuple[dict[str, Any], str]:
    """The front matter of the model card, and its text."""
    _, front, text = (MODEL / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.fixture(scope="module")
def template() -> Any:
    source = (MODEL / "chat_template.jinja").read_text()
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)


def test_holds_what_a_repository_holds() -> None:
    assert {path.name for path in MODEL.iterdir()} == {
        "LICENSE",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }


def test_stays_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= LIMIT


def test_tensors_fill_the_file(header: dict[str, Any]) -> None:
    end = 0
    for tensor in sorted(header.values(), key=lambda tensor: tensor["data_offsets"]):
        assert tensor["dtype"] == "BF16"
        assert tensor["data_offsets"] == [end, end + 2 * math.prod(tensor["shape"])]
        end = tensor["data_offsets"][1]
    with (MODEL / "model.safetensors").open("rb") as file:
        head = 8 + int.from_bytes(file.read(8), "little")
    assert (MODEL / "model.safetensors").stat().st_size == head + end


def test_tensors_have_the_shapes_of_the_configuration(header: dict[str, Any]) -> None:
    config = read("config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"]
    wide, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [wide],
        "post_attention_layernorm": [wide],
        "self_attn.q_proj": [queries, wide],
        "self_attn.k_proj": [keys, wide],
        "self_attn.v_proj": [keys, wide],
        "self_attn.o_proj": [wide, queries],
        "mlp.gate_proj": [inner, wide],
        "mlp.up_proj": [inner, wide],
        "mlp.down_proj": [wide, inner],
    }
    expected = {
        "model.embed_tokens.weight": [config["vocab_size"], wide],
        "model.norm.weight": [wide],
    }
    for number in range(config["num_hidden_layers"]):
        for name, shape in layer.items():
            expected[f"model.layers.{number}.{name}.weight"] = shape
    assert {name: tensor["shape"] for name, tensor in header.items()} == expected


def test_parameters_are_counted_once(header: dict[str, Any]) -> None:
    assert sum(math.prod(tensor["shape"]) for tensor in header.values()) == PARAMETERS


def test_rows_suit_block_quantization(header: dict[str, Any]) -> None:
    matrices = [tensor["shape"] for tensor in header.values() if len(tensor["shape"]) == 2]
    assert matrices
    assert all(shape[1] % 256 == 0 for shape in matrices)


def test_configuration_suits_both_generations_of_transformers() -> None:
    config = read("config.json")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"


def test_tokenizer_is_the_size_of_the_vocabulary() -> None:
    config, tokenizer = read("config.json"), read("tokenizer.json")
    pieces = tokenizer["model"]["vocab"]
    assert sorted(pieces.values()) == list(range(config["vocab_size"]))
    assert tokenizer["model"]["byte_fallback"]
    special = read("special_tokens_map.json")
    assert pieces[special["bos_token"]] == config["bos_token_id"]
    assert pieces[special["eos_token"]] == config["eos_token_id"]
    assert read("tokenizer_config.json")["model_max_length"] == config["max_position_embeddings"]


def test_tokenizer_begins_every_text() -> None:
    first, *_ = read("tokenizer.json")["post_processor"]["single"]
    assert first["SpecialToken"]["id"] == "<s>"


def test_sentencepiece_model_knows_the_same_pieces() -> None:
    proto = (MODEL / "tokenizer.model").read_bytes()
    for piece in read("tokenizer.json")["model"]["vocab"]:
        text = piece.encode()
        assert bytes([0x0A, len(text)]) + text in proto, piece


def test_card_says_what_the_catalogue_needs(card: tuple[dict[str, Any], str]) -> None:
    front, _ = card
    assert front["license"] == "other"
    assert front["license_name"] == "psf-2.0"
    assert (
        (MODEL / front["license_link"]).read_text().startswith("SPDX-License-Identifier: PSF-2.0")
    )
    assert front["pipeline_tag"] == "text-generation"
    assert front["library_name"] == "transformers"


def test_card_tells_a_perplexity_far_below_guessing(card: tuple[dict[str, Any], str]) -> None:
    front, text = card
    (metric,) = front["model-index"][0]["results"][0]["metrics"]
    assert f"**{metric['value']:.2f}**" in text
    assert metric["value"] < read("config.json")["vocab_size"] / 50


def test_card_has_every_figure_filled_in(card: tuple[dict[str, Any], str]) -> None:
    front, text = card
    assert not re.search(r"\$\w", text)
    assert f"{PARAMETERS:,}" in text
    assert front["model-index"][0]["name"] == MODEL.name


def test_template_turns_a_request_into_a_comment(template: Any) -> None:
    messages = [
        {"role": "user", "content": "List files\nin a folder."},
        {"role": "assistant", "content": "import os"},
    ]
    text = template.render(messages=messages, bos_token="<s>", eos_token="</s>")
    assert text == "<s># List files\n# in a folder.\nimport os</s>"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_names_no_place_of_the_machine_that_trained_it(path: Path) -> None:
    assert not re.search(rb"/(root|home|tmp|Users)/|file://", path.read_bytes())
