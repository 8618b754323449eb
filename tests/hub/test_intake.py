"""Tests of hub/intake.py: one set of weights and what is needed to use them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import HubError
from hub.intake import candidate, choose, described, pickle, tokenizer
from hub.upstream import RemoteFile

BASE = {"config.json", "tokenizer.json"}


def chosen(
    *paths: str, index: dict[str, str] | None = None, allow_pickle: bool = False
) -> set[str]:
    files = [RemoteFile(path, 1) for path in {*BASE, *paths}]
    text = json.dumps({"weight_map": index or {}}).encode()
    return {file.path for file in choose("org/model", files, lambda path: text, allow_pickle)}


@pytest.mark.parametrize(
    "path",
    """README.md LICENSE LICENSE.txt license.md NOTICE USE_POLICY.md generation_config.json
    merges.txt tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja
    vocab.json chat_template.json tokenizer.model qwen.tiktoken preprocessor_config.json
    additional_chat_templates/tools.jinja""".split(),  # noqa: SIM905
)
def test_what_describes_the_model_is_taken(path: str) -> None:
    assert path in chosen("model.safetensors", path)


@pytest.mark.parametrize(
    "path",
    """modeling_x.py license.py license.pkl model.gguf model.onnx onnx/model.onnx onnx/config.json
    original/consolidated.00.pth original/tokenizer.model consolidated.safetensors tf_model.h5
    pytorch_model.bin pytorch_model.bin.index.json flax_model.msgpack training_args.bin x.pt x.ckpt
    rust_model.ot adapter_model.safetensors model.fp16.safetensors figures/a.png .gitattributes
    .cache/x.json runs/events.json additional_chat_templates/x.py sub/model.safetensors
    model.safetensors.index.json model-00001-of-00002.safetensors""".split(),  # noqa: SIM905
)
def test_what_is_dangerous_double_or_elsewhere_is_not(path: str) -> None:
    assert path not in chosen("model.safetensors", path)


def test_the_index_names_the_shards() -> None:
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    taken = chosen("model.safetensors.index.json", *index.values(), "x.safetensors", index=index)
    assert taken - BASE == {"model.safetensors.index.json", *index.values()}


def test_without_the_usual_names_all_there_are_are_taken() -> None:
    taken = chosen("a-1.safetensors", "a-2.safetensors", "consolidated.safetensors")
    assert taken - BASE == {"a-1.safetensors", "a-2.safetensors"}
    taken = chosen("weights.safetensors", "adapter_model.safetensors")
    assert taken - BASE == {"weights.safetensors"}


@pytest.mark.parametrize("path", ["../model-1.safetensors", "/etc/passwd", "model-9.safetensors"])
def test_an_index_cannot_name_what_is_not_listed(path: str) -> None:
    with pytest.raises(HubError) as caught:
        chosen("model.safetensors.index.json", index={"a": path})
    assert path in caught.value.message


def test_pickles_are_taken_when_allowed() -> None:
    taken = chosen("pytorch_model.bin", "pytorch_model.bin.index.json", "x.py", allow_pickle=True)
    assert taken - BASE == {"pytorch_model.bin", "pytorch_model.bin.index.json"}


@pytest.mark.parametrize(
    ("paths", "enough"),
    [
        (["tokenizer.json"], True),
        (["tokenizer.model"], True),
        (["vocab.json", "merges.txt"], True),
        (["vocab.json"], False),
        (["tokenizer_config.json", "special_tokens_map.json"], False),
        (["qwen.tiktoken"], True),
        (["original/tokenizer.model"], False),
        ([], False),
    ],
)
def test_what_makes_a_tokenizer(paths: list[str], enough: bool) -> None:
    assert tokenizer(paths) == enough


@given(st.text(min_size=1, max_size=30))
def test_code_and_pickles_never_slip_in(name: str) -> None:
    for suffix in (".py", ".PY", ".pkl", ".bin", ".pt", ".pth", ".ckpt", ".Pickle"):
        assert not candidate(name + suffix, False)
        assert not described("license" + name + suffix)
    assert pickle(name + ".BIN")
