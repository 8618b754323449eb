"""BitNet's packed checkpoints: written anew with a BF16 number for each weight.

A byte holds four ternary weights, of rows that lie a quarter of the matrix apart; all weights of a
matrix are times one number. Ternary times a BF16 number is a BF16 number: nothing is lost. A child
process:

    python bitnet.py FOLDER SETTINGS FILE...
"""

import json
import sys
from pathlib import Path
from typing import Any

from progress import say

PART = 1 << 30  # bytes of a file that is written: what is held at once


def unpack(source: list[Path], folder: Path, settings: dict[str, Any]) -> None:
    """Write the weights of `source` into `folder`, unpacked. `settings` is quantization_config."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    where = {}
    for path in sorted(source):
        with safe_open(path, "pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    # The linear layers of the older class divide by the number, those of the newer multiply.
    divides = settings.get("linear_class", "bitlinear") == "bitlinear"
    part: dict[str, Any] = {}
    held = count = 0

    def write() -> None:
        save_file(part, folder / f"model-{count:05}.safetensors", metadata={"format": "pt"})
        part.clear()

    for number, name in enumerate(sorted(where)):
        say(done=number / len(where), message="unpacking ternary weights")
        if name.endswith(".weight_scale"):
            continue
        with safe_open(where[name], "pt") as file:
            tensor = file.get_tensor(name)
        scale = name + "_scale"
        if tensor.dtype == torch.uint8 and scale in where:
            with safe_open(where[scale], "pt") as file:
                factor = file.get_tensor(scale).to(torch.float32)
            factor = 1 / factor if divides else factor
            rows = [(tensor >> shift & 3).to(torch.bfloat16) - 1 for shift in (0, 2, 4, 6)]
            tensor = torch.cat(rows).mul_(factor.to(torch.bfloat16))
            del rows
        part[name] = tensor.contiguous()
        held += tensor.numel() * tensor.element_size()
        if held > PART:
            write()
            held, count = 0, count + 1
    if part:
        write()


if __name__ == "__main__":
    unpack([Path(name) for name in sys.argv[3:]], Path(sys.argv[1]), json.loads(sys.argv[2]))
