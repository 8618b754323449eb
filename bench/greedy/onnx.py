"""ONNX with a KV cache in onnxruntime, as optimum and transformers.js feed it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))
from path import Sequence, main

sys.path.pop()  # its other modules are named like packages

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def load(artefact: Path, longest: int) -> Callable[[], Sequence]:  # noqa: ARG001 - it grows as needed
    """Open the one .onnx in a folder."""
    import onnxruntime

    (file,) = artefact.rglob("*.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = [one.name for one in session.get_outputs()]
    past = {name: one for name, one in inputs.items() if name.startswith("past_key_values")}

    class Cached:
        def __init__(self) -> None:
            self.length = 0
            self.cache = {name: empty(one) for name, one in past.items()}

        def feed(self, tokens: list[int]) -> np.ndarray:
            end = self.length + len(tokens)
            given = {
                "input_ids": [tokens],
                "attention_mask": np.ones((1, end)),
                "position_ids": [np.arange(self.length, end)],
                "use_cache_branch": [self.length > 0],
                "num_logits_to_keep": 1,
            }
            fed = {
                name: np.asarray(given[name], TYPES[one.type])
                for name, one in inputs.items()
                if name not in past
            }
            seen = dict(zip(outputs, session.run(outputs, fed | self.cache), strict=True))
            self.length = end
            self.cache = {name: seen[name.replace("past_key_values", "present")] for name in past}
            return seen["logits"][0, -1]

    return Cached


def empty(one: object) -> np.ndarray:
    """The cache before anything is in it: no batch but one, no position."""
    batch, groups, _, size = one.shape
    return np.zeros((1 if isinstance(batch, str) else batch, groups, 0, size), TYPES[one.type])


if __name__ == "__main__":
    main(load)
