"""GGUF in llama.cpp, through cyllama, on the processor."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))
from path import Sequence, main

sys.path.pop()  # its other modules are named like packages

F32 = 0  # in ggml's enum of types
OFF = 0  # in llama.cpp's enum of flash attention


def load(artefact: Path, longest: int) -> Callable[[], Sequence]:
    """Open the one .gguf in a folder."""
    from cyllama.llama import llama_cpp

    class Model(llama_cpp.LlamaModel):
        # The binding's get_logits_ith asks the model for a size that only the vocabulary knows.
        n_vocab = property(lambda self: self.get_vocab().n_vocab)

    llama_cpp.ggml_backend_load_all()
    (file,) = artefact.glob("*.gguf")
    wanted = llama_cpp.LlamaModelParams()
    wanted.n_gpu_layers = 0
    model = Model(str(file), wanted)
    limits = llama_cpp.LlamaContextParams()
    limits.n_ctx = limits.n_batch = limits.n_ubatch = longest
    limits.n_threads = limits.n_threads_batch = 1
    # What is compared is the file: neither a rounded cache nor attention in half precision.
    limits.type_k = limits.type_v = F32
    limits.flash_attn_type = OFF

    class Context:
        def __init__(self) -> None:
            self.context = llama_cpp.LlamaContext(model, limits)
            self.length = 0

        def feed(self, tokens: list[int]) -> np.ndarray:
            self.context.decode(llama_cpp.llama_batch_get_one(tokens, self.length))
            self.length += len(tokens)
            return np.array(self.context.get_logits_ith(-1), np.float32)

    return Context


if __name__ == "__main__":
    main(load)
