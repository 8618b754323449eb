"""Runs the model builder for one variant: `python -I build.py request.json`.

The request: source, output, cache and store (folders), precision, provider, options.
Progress goes to stdout, as lines that begin with `progress `.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def report(done: float, message: str) -> None:
    """Tell the parent how far it is."""
    print(f"progress {done:.4f} {message}", flush=True)


def main(path: str) -> None:
    """Write one variant."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    report(0.0, "Loading the builder")
    import onnxruntime_genai

    # Its modules find each other by plain names.
    sys.path.insert(0, str(Path(onnxruntime_genai.__file__).parent / "models"))
    import builder
    import stream
    from builders.base import Model
    from builders.smollm import SmolLM3Model

    key = "-".join([request["precision"], *(str(each) for each in request["options"].values())])

    def store(model: Any) -> stream.Store:
        return stream.Store(Path(request["store"]), f"{key}-{model.io_dtype.name}")

    stream.install(Model, store, report)
    _leave_positions_out(SmolLM3Model)
    _fuse_on_processors(Model)
    source, output = request["source"], request["output"]
    # A cache that holds just the window refuses every run that is shorter than the window.
    extra = ["windowed_kv_cache=false"]
    if request["precision"] == "int4":
        named = {"block_size": "block_size", "accuracy_level": "accuracy_level"}
        named["algorithm"] = "algo_config"
        # Level 0 is the builder's choice, which it makes where none is named.
        chosen = {key: value for key, value in request["options"].items() if value != 0}
        extra += [f"{named[key]}={value}" for key, value in chosen.items()]
    arguments = (source, source, output, request["precision"], request["provider"])
    options = builder.parse_extra_options(*arguments, request["cache"], extra)
    _flatten(options["hf_details"]["hf_config"])
    builder.create_model(*arguments, request["cache"], **options)
    report(1.0, "Written")


def _flatten(config: Any) -> None:
    """Give Gemma 3 the keys of its published configuration back.

    transformers 5 sorts the angles of local and global layers into one table, and the builder's
    Gemma 3 reads them where transformers 4 had them.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if "full_attention" in rope and "sliding_attention" in rope:
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_parameters = dict(rope["full_attention"])
        config.rope_theta = rope["full_attention"]["rope_theta"]


def _fuse_on_processors(base: Any) -> None:
    """Let fp16 for CPUs have the fused attention that the CPU has kernels for.

    The builder spells it out instead, with keys and values said to be as long as the queries:
    the runtime then ends at the second token (onnxruntime-genai, issue 2009).
    """
    for name in ("is_gqa_supported", "is_packed_attn_supported"):
        supported = getattr(base, name)

        def fused(self: Any, supported: Callable[[Any], bool] = supported) -> bool:
            return bool(supported(self)) or (self.ep == "cpu" and self.io_dtype.name == "FLOAT16")

        setattr(base, name, fused)


def _leave_positions_out(smollm: Any) -> None:
    """Let SmolLM3's layers without positions have none.

    The builder turns the fused rotation off for them, which its base class takes for a wish to
    rotate before the attention; with the positions no longer an input, that fails.
    """
    rotate = smollm.make_attention_qk_rope

    def make_attention_qk_rope(self: Any, layer_id: int, **kwargs: Any) -> tuple[str, str]:
        if not self.no_rope_layers[layer_id]:
            return "", ""
        return rotate(self, layer_id, **kwargs)

    smollm.make_attention_qk_rope = make_attention_qk_rope


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    main(sys.argv[1])
