"""ONNX Runtime GenAI's own folder in its own runtime, on the processor."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))
from path import Sequence, main

sys.path.pop()  # its other modules are named like packages


def load(artefact: Path, longest: int) -> Callable[[], Sequence]:
    """Open the one folder with a genai_config.json."""
    import onnxruntime_genai as genai

    (config,) = artefact.rglob("genai_config.json")
    model = genai.Model(str(config.parent))

    class Generator:
        def __init__(self) -> None:
            parameters = genai.GeneratorParams(model)
            parameters.set_search_options(max_length=longest + 1, do_sample=False)
            self.generator = genai.Generator(model, parameters)

        def feed(self, tokens: list[int]) -> np.ndarray:
            # Tokens are appended, never generated: an end of text then ends nothing.
            self.generator.append_tokens(np.array([tokens], np.int32))
            logits = np.array(self.generator.get_logits(), np.float32)
            return logits.reshape(-1, logits.shape[-1])[-1]

    return Generator


if __name__ == "__main__":
    main(load)
