"""llama.cpp itself: quantizes a file, and proves that a file runs.

    python -I llama.py quantize BASE TARGET TYPE THREADS
    python -I llama.py generate MODEL RESULT PROMPT TOKENS THREADS

A program of its own because an assertion inside llama.cpp aborts the process that it runs in.
`convert.py` starts it and imports only FILE_TYPES from it.
"""

import json
import math
import sys
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

# The numbers of llama.cpp's `enum llama_ftype` (include/llama.h), which it writes into the file.
FILE_TYPES = {
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "TQ1_0": 36,
    "TQ2_0": 37,
}


def quantize(base: str, target: str, file_type: str, threads: str) -> None:
    """Write `base` as `file_type` to `target`: llama-quantize with nothing but a type given.

    Raises RuntimeError with llama.cpp's code; its reason is on stderr.
    """
    from cyllama.llama import llama_cpp

    llama_cpp.ggml_backend_load_all()
    parameters = llama_cpp.LlamaModelQuantizeParams()
    parameters.ftype = FILE_TYPES[file_type]
    parameters.nthread = int(threads)
    llama_cpp.model_quantize(base, target, parameters)


def generate(model: str, result: str, prompt: str, tokens: str, threads: str) -> None:
    """Load `model`, continue `prompt` greedily by `tokens` tokens, write what was seen to `result`.

    An end-of-text token does not stop it: a model that has nothing to say still has to compute.
    Raises ValueError where the file does not load or computes something that is not a number.
    """
    from cyllama.llama import llama_cpp

    class Model(llama_cpp.LlamaModel):
        # The binding's get_logits_ith asks the model for a size that only the vocabulary knows.
        n_vocab = property(lambda self: self.get_vocab().n_vocab)

    llama_cpp.ggml_backend_load_all()
    started = time.perf_counter()
    wanted = llama_cpp.LlamaModelParams()
    wanted.n_gpu_layers = 0  # the same answer wherever the hub runs
    wanted.check_tensors = True  # every block of every tensor, not only those this prompt touches
    loaded = Model(model, wanted)
    vocabulary = loaded.get_vocab()
    start = vocabulary.tokenize(prompt, True, False)

    limits = llama_cpp.LlamaContextParams()
    limits.n_ctx = len(start) + int(tokens)
    limits.n_threads = limits.n_threads_batch = int(threads)
    context = llama_cpp.LlamaContext(loaded, limits)
    sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
    sampler.add_greedy()
    load_seconds = time.perf_counter() - started

    context.decode(llama_cpp.llama_batch_get_one(start, 0))
    _require_numbers(context)
    seen: list[int] = []
    started = time.perf_counter()
    for position in range(len(start), len(start) + int(tokens)):
        seen.append(sampler.sample(context, -1))
        context.decode(llama_cpp.llama_batch_get_one(seen[-1:], position))
    seconds = time.perf_counter() - started
    _require_numbers(context)

    text = vocabulary.detokenize(seen, 64 * len(seen), False, True)
    report = {
        "runtime": _runtime(),
        "prompt": prompt,
        "text": text,
        "tokens": len(seen),
        "load_seconds": round(load_seconds, 3),
        "tokens_per_second": round(len(seen) / seconds, 1),
    }
    Path(result).write_text(json.dumps(report), encoding="utf-8")


def _require_numbers(context: object) -> None:
    """Raise ValueError unless every logit is finite. One NaN on the way makes all later ones so."""
    if not all(map(math.isfinite, context.get_logits_ith(-1))):
        raise ValueError("the model computes values that are not finite numbers")


def _runtime() -> str:
    """The runtime with its build, e.g. `llama.cpp b9190 (cyllama 0.2.18)`."""
    facts = json.loads(files("cyllama").joinpath("build_config.json").read_text(encoding="utf-8"))
    return f"llama.cpp {facts['versions']['llama_cpp_version']} (cyllama {version('cyllama')})"


if __name__ == "__main__":
    {"quantize": quantize, "generate": generate}[sys.argv[1]](*sys.argv[2:])
