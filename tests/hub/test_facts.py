"""Counts and facts, on the shapes of real models and on nonsense."""

import json
from typing import Any

import pytest
import shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.facts import MAX_FRONT_MATTER, Facts, facts, front_matter
from hub.safetensors import Header


def of(
    tensors: shapes.Shapes | None = None, config: dict[str, Any] | None = None, **more: Any
) -> Facts:
    headers = {"model.safetensors": shapes.header(tensors)} if tensors else {}
    return facts(config or {}, headers, **more)


TIED = {"tie_word_embeddings": True, "model_type": "qwen3"}
QWEN = 596_049_920


# Counts


@pytest.mark.parametrize("head_stored", [False, True])
def test_tied_weights_count_once(head_stored: bool) -> None:
    found = of(shapes.qwen3_06b(head_stored=head_stored), TIED)
    assert found.parameters == QWEN
    assert found.tied is True
    assert (found.tier, found.dtype, found.bits, found.precision) == ("micro", "BF16", 16, "half")
    assert found.dtypes == {"BF16": QWEN}
    assert found.active_parameters is None


def test_an_untied_head_counts() -> None:
    found = of(shapes.qwen3_06b(head_stored=True), {"tie_word_embeddings": False})
    assert found.parameters == QWEN + 151936 * 1024
    assert found.tied is False


def test_gemma_is_tied_without_saying_so() -> None:
    stored = {"model.embed_tokens.weight": ("F32", (9, 4)), "lm_head.weight": ("F32", (9, 4))}
    assert of(stored, {"model_type": "gemma3_text"}).parameters == 36
    assert of(stored, {"model_type": "llama"}).parameters == 72
    assert of(stored, {"text_config": {"tie_word_embeddings": True}}).parameters == 36


def test_a_head_of_another_shape_is_not_the_embedding() -> None:
    stored = {"model.embed_tokens.weight": ("F32", (9, 4)), "lm_head.weight": ("F32", (8, 4))}
    assert of(stored, TIED).parameters == 36 + 32


def test_bitnet_weights_are_four_a_byte() -> None:
    config = {"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet"}}
    found = of(shapes.bitnet_2b(), config)
    assert found.parameters == 2_412_820_480
    assert (found.tier, found.quantization, found.dtype) == ("small", "bitnet", "U8")
    assert found.precision == "ultra-low"


def test_bitnet_master_weights_are_not_packed() -> None:
    config = {"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet"}}
    found = of({"model.layers.0.mlp.up_proj.weight": ("BF16", (8, 4))}, config)
    assert (found.parameters, found.precision) == (32, "half")


@pytest.mark.parametrize(
    ("method", "said", "precision"),
    [
        ("gptq", {"quant_method": "gptq", "bits": 4}, "low"),
        ("gptq", {"quant_method": "gptq", "bits": 8}, "medium"),
        ("gptq", {"quant_method": "gptq", "bits": 2}, "ultra-low"),
        ("gptq", {"quant_method": "gptq"}, "low"),
        ("awq", {"quant_method": "awq", "bits": 4}, "low"),
        ("awq", {"quant_method": "awq", "w_bit": 4}, "low"),
        ("mlx", {"group_size": 64, "bits": 4}, "low"),
        ("mlx", {"group_size": 64, "bits": 8}, "medium"),
        ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "low"),
        (
            "compressed-tensors",
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
            },
            "low",
        ),
        ("fp8", {"quant_method": "fp8"}, "medium"),
    ],
)
def test_packed_weights_count_unpacked(method: str, said: dict[str, Any], precision: str) -> None:
    bits = said.get("bits", 4)
    tensors = shapes.packed(shapes.qwen3_06b(head_stored=False), method, bits)
    key = "quantization" if method == "mlx" else "quantization_config"
    found = of(tensors, {**TIED, key: said})
    assert found.parameters == QWEN
    assert found.quantization == method
    assert found.precision == precision


@pytest.mark.parametrize(
    ("tensors", "config", "total", "active"),
    [
        (
            shapes.mixtral_8x7b,
            {"num_local_experts": 8, "num_experts_per_tok": 2},
            46_702_792_704,
            12_879_925_248,
        ),
        (
            shapes.qwen15_moe,
            {"num_experts": 60, "num_experts_per_tok": 4},
            14_315_784_192,
            # All but 56 of the 60 routed experts; the shared one is always on.
            14_315_784_192 - 24 * 56 * 3 * 2048 * 1408,
        ),
        (
            shapes.olmoe,
            {"num_experts": 64, "num_experts_per_tok": 8},
            6_919_161_856,
            1_282_017_280,
        ),
        (
            shapes.granite_moe_1b,
            {"num_local_experts": 32, "num_experts_per_tok": 8, "tie_word_embeddings": True},
            1_334_628_352,
            1_334_628_352 - 24 * 24 * (1024 * 1024 + 1024 * 512),
        ),
    ],
)
def test_experts(tensors: Any, config: dict[str, Any], total: int, active: int) -> None:
    found = of(tensors(), config)
    assert (found.parameters, found.active_parameters) == (total, active)
    assert found.experts == config.get("num_experts", config.get("num_local_experts"))
    assert found.experts_active == config["num_experts_per_tok"]


@pytest.mark.parametrize(
    "config",
    [
        {"num_local_experts": 0, "num_experts_per_tok": 0},
        {"num_local_experts": 1, "num_experts_per_tok": 1},
        {"num_local_experts": 4, "num_experts_per_tok": 8},
        {"num_local_experts": "8", "num_experts_per_tok": None},
        {"num_local_experts": 8},
    ],
)
def test_a_dense_model_has_no_active_parameters(config: dict[str, Any]) -> None:
    assert of(shapes.qwen3_06b(head_stored=False), config).active_parameters is None


def test_buffers_are_no_parameters() -> None:
    stored = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (64,)),
        "h.0.attn.bias": ("F32", (1, 1, 1024, 1024)),
        "h.0.attn.masked_bias": ("F32", ()),
        "mask": ("BOOL", (9,)),
        "h.0.attn.c_attn.bias": ("F32", (3,)),
        "embeddings.position_ids": ("I64", (1, 512)),
    }
    assert of(stored).parameters == 3


def test_shards_are_added_up() -> None:
    one, two = {"a": ("F32", (2, 3))}, {"b": ("F32", (4,))}
    headers = {
        "model-00001-of-00002.safetensors": shapes.header(one),
        "model-00002-of-00002.safetensors": shapes.header(two),
    }
    assert facts({}, headers).parameters == 10


def test_every_file_counts_whatever_it_is_called() -> None:
    headers = {
        "model-00001-of-00002.safetensors": shapes.header({"a": ("F32", (2, 3))}),
        "model-extra.safetensors": shapes.header({"b": ("F32", (4,))}),
        "vision/consolidated.safetensors": shapes.header({"c": ("F32", (5,))}),
        # What two files hold is one tensor.
        "model-again.safetensors": shapes.header({"a": ("F32", (2, 3))}),
    }
    assert facts({}, headers).parameters == 15


def test_nothing_known() -> None:
    assert facts(None, {}) == Facts()
    assert json.loads(json.dumps(Facts().as_dict()))["parameters"] is None


# The configuration and the card


def test_what_the_files_say() -> None:
    found = facts(
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "max_position_embeddings": 40960,
            "vocab_size": 151936,
        },
        {},
        card="---\nlicense: apache-2.0\nlanguage:\n- en\n- no\ntags: [chat]\n"
        "base_model: Qwen/Qwen3-0.6B-Base\n---\n# Qwen3\n---\nlicense: other\n",
        file_names=["config.json"],
        generation_config={"temperature": 0.6, "top_k": 20, "top_p": "high", "do_sample": True},
        tokenizer_config={"chat_template": "{{ messages }}"},
    )
    assert found.architecture == "Qwen3ForCausalLM"
    assert (found.context_length, found.vocabulary) == (40960, 151936)
    assert (found.license, found.languages) == ("apache-2.0", ["en", "no"])
    assert (found.tags, found.base_model) == (["chat"], ["Qwen/Qwen3-0.6B-Base"])
    assert found.pipeline_tag == "text-generation"
    assert found.has_chat_template
    assert found.generation == {"temperature": 0.6, "top_k": 20}


@pytest.mark.parametrize(
    "names", [["chat_template.jinja"], ["additional_chat_templates/tool.jinja"]]
)
def test_templates_in_files_of_their_own(names: list[str]) -> None:
    assert facts({}, {}, file_names=names).has_chat_template
    assert not facts({}, {}, file_names=["docs/chat_template.jinja"]).has_chat_template


def test_the_text_part_of_a_larger_model() -> None:
    config = {"text_config": {"max_position_embeddings": 131072, "vocab_size": 262208}}
    found = facts(config, {})
    assert (found.context_length, found.vocabulary) == (131072, 262208)


def test_the_tokenizer_may_know_the_context() -> None:
    assert facts({}, {}, tokenizer_config={"model_max_length": 2048}).context_length == 2048
    assert facts({}, {}, tokenizer_config={"model_max_length": 1e30}).context_length is None


def test_licences_with_a_name_of_their_own() -> None:
    card = "---\nlicense: other\nlicense_name: health-ai\n---\n"
    assert facts({}, {}, card).license == "health-ai"
    assert facts({}, {}, "---\nlicense: null\n---\n").license is None


@pytest.mark.parametrize(
    "head",
    [
        "[" * 120_000,
        "{a: " * 60_000,
        "- " * 120_000,
        "? " * 120_000,
        "a: *nobody",
        "!!python/object/apply:os.system ['false']",
        "license: [",
        "\0",
        "- license: mit",
        "x" * (MAX_FRONT_MATTER + 1),
        "a: &a [x]\nb: &b [*a,*a]\n" + "c: [*b, *b]\n" * 1000,
        "? {license: mit}\n: x",
    ],
)
def test_a_hostile_card_says_nothing(head: str) -> None:
    found = facts({}, {}, f"---\n{head}\n---\n")
    assert found.license is None


def test_only_texts_and_lists_of_texts_count() -> None:
    card = "---\nlicense: {name: mit}\nlanguage: [en, [de], {a: fr}, it]\n? [x]\n: y\ntags: a\n---"
    assert front_matter(card)["language"] == ["en", "it"]
    found = facts({}, {}, card)
    assert (found.license, found.languages, found.tags) == (None, ["en", "it"], ["a"])


@pytest.mark.parametrize("card", [None, "", "# Title", "---\nlicense: mit", "----\na: b\n---"])
def test_cards_without_a_head(card: str | None) -> None:
    assert facts({}, {}, card).license is None


keys = st.sampled_from(
    [
        "architectures",
        "model_type",
        "max_position_embeddings",
        "vocab_size",
        "num_experts",
        "text_config",
        "bits",
        "num_local_experts",
        "num_experts_per_tok",
        "quantization_config",
        "quant_method",
        "config_groups",
        "tie_word_embeddings",
        "model_max_length",
        "chat_template",
        "temperature",
        "group_size",
        "weights",
    ]
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["gptq", "bitnet", "awq"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
SMALL: dict[str, Header] = {
    "model.safetensors": shapes.header(
        {
            "model.embed_tokens.weight": ("BF16", (5, 4)),
            "lm_head.weight": ("BF16", (5, 4)),
            "model.layers.0.mlp.experts.0.up_proj.weight": ("U8", (2, 4)),
            "model.layers.0.mlp.experts.1.up_proj.qweight": ("I32", (2, 4)),
        }
    )
}


@settings(max_examples=300)
@given(anything, anything, anything, st.text(max_size=50))
def test_no_value_crashes_it(config: Any, generation: Any, tokenizer: Any, card: str) -> None:
    found = facts(config, SMALL, f"---\n{card}\n---\n", [], generation, tokenizer)
    assert found.parameters is not None
    assert found.active_parameters is None or 0 < found.active_parameters <= found.parameters
    # PostgreSQL and browsers take no NaN.
    json.dumps(found.as_dict(), allow_nan=False)
