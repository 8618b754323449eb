"""The source itself, computed by transformers in float32: what the others are compared with.

The packed weights of BitNet are unpacked to numbers first. Its activations are not rounded to 8
bits, as transformers would: the runtimes each do that in their own way, or not at all.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))
from path import Sequence, main

sys.path.pop()  # its other modules are named like packages


def load(source: Path, longest: int) -> Callable[[], Sequence]:  # noqa: ARG001 - it grows as needed
    """Open a model in the format of transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # a tiny model gains nothing by more, and others need them
    with tempfile.TemporaryDirectory() as folder:
        if "quantization_config" in json.loads((source / "config.json").read_bytes()):
            source = unpacked(source, Path(folder))
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.eval()

    class Cached:
        def __init__(self) -> None:
            self.cache = None

        @torch.no_grad()
        def feed(self, tokens: list[int]) -> np.ndarray:
            ids = torch.tensor([tokens])
            seen = model(ids, past_key_values=self.cache, use_cache=True)
            self.cache = seen.past_key_values
            return seen.logits[0, -1].numpy()

    return Cached


def unpacked(source: Path, folder: Path) -> Path:
    """Write a BitNet of packed ternary weights as one of plain numbers into `folder`."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((source / "config.json").read_bytes())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    stored = load_file(source / "model.safetensors")
    plain = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.uint8:
            # The bits of a byte are of rows a quarter of the matrix apart.
            parts = [(tensor >> shift & 3).float() - 1 for shift in (0, 2, 4, 6)]
            plain[name] = torch.cat(parts) * stored[f"{name}_scale"].float()
        elif not name.endswith("weight_scale"):
            plain[name] = tensor.float()
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


if __name__ == "__main__":
    main(load)
