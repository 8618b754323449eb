"""Runs llama.cpp's converter, with two of its gaps filled. The arguments are the converter's own.

It asks transformers for the configuration, and transformers 5 renames `rope_scaling`, which its
classes for Phi still look for: without it the file has no factors of LongRoPE, nobody complains,
and what it generates is wrong. And an architecture without a vocabulary of its own takes byte-pair
tokenizers only, although the converter can read any SentencePiece model.
"""

import json
import sys
from pathlib import Path
from typing import Any

from source import llama_tree


def main(arguments: list[str]) -> None:
    """Convert as the converter's command line does."""
    sys.path.insert(0, str(llama_tree()))
    import convert_hf_to_gguf
    from conversion.base import ModelBase, TextModel

    load = ModelBase.load_hparams

    def load_hparams(folder: Path, is_mistral_format: bool) -> dict[str, Any]:
        found = load(folder, is_mistral_format)
        return found if is_mistral_format else with_rope_scaling(found, folder)

    def set_vocab(model: Any) -> None:
        if (model.dir_model / "tokenizer.model").is_file():
            model._set_vocab_sentencepiece()
        else:
            model._set_vocab_gpt2()

    ModelBase.load_hparams = staticmethod(load_hparams)
    TextModel.set_vocab = set_vocab
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    convert_hf_to_gguf.main()


def with_rope_scaling(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration, and in it `rope_scaling` as config.json has it, under either name."""
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    scaling = written.get("rope_scaling") or written.get("rope_parameters")
    kinds = ("type", "rope_type")
    if config.get("rope_scaling") or not isinstance(scaling, dict):
        return config
    # What only says how large theta is scales nothing.
    if all(scaling.get(kind) in (None, "default") for kind in kinds):
        return config
    return config | {"rope_scaling": scaling}


if __name__ == "__main__":
    main(sys.argv[1:])
