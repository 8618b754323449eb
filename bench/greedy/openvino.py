"""The IR with its state in OpenVINO, on the processor, in float32."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))
from path import Sequence, main

sys.path.pop()  # its other modules are named like packages

EXACT = {
    # What is compared is the file: the plugin for processors would round on its own.
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "INFERENCE_NUM_THREADS": 1,
}


def load(artefact: Path, longest: int) -> Callable[[], Sequence]:  # noqa: ARG001 - it grows as needed
    """Open the one openvino_model.xml in a folder."""
    import openvino

    (file,) = artefact.rglob("openvino_model.xml")
    compiled = openvino.Core().compile_model(str(file), "CPU", EXACT)
    names = {one.get_any_name() for one in compiled.inputs}

    class State:
        def __init__(self) -> None:
            self.request = compiled.create_infer_request()
            self.request.reset_state()
            self.length = 0

        def feed(self, tokens: list[int]) -> np.ndarray:
            end = self.length + len(tokens)
            given = {
                "input_ids": np.array([tokens], np.int64),
                "attention_mask": np.ones((1, end), np.int64),
                "position_ids": np.arange(self.length, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            self.length = end
            seen = self.request.infer({name: given[name] for name in names})
            return np.array(seen["logits"][0, -1], np.float32)

    return State


if __name__ == "__main__":
    main(load)
