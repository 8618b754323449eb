"""llama.cpp itself: quantizes a file, and proves that a file runs.

    python -I llama.py quantize BASE TARGET TYPE THREADS [EMBEDDINGS [IMATRIX]]
    python -I llama.py generate MODEL RESULT PROMPT TOKENS THREADS

A program of its own because an assertion inside llama.cpp aborts the process that it runs in.
`convert.py` starts it and imports only FILE_TYPES from it. EMBEDDINGS is a type for the token
embeddings, or empty; IMATRIX is the importance matrix, a file.
"""

import ctypes
import json
import math
import sys
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

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
    "IQ2_XXS": 19,
    "IQ2_XS": 20,
    "IQ3_XS": 22,
    "IQ3_XXS": 23,
    "IQ1_S": 24,
    "IQ4_NL": 25,
    "IQ3_S": 26,
    "IQ3_M": 27,
    "IQ2_S": 28,
    "IQ2_M": 29,
    "IQ4_XS": 30,
    "IQ1_M": 31,
    "TQ1_0": 36,
    "TQ2_0": 37,
}


TENSOR_TYPES = {"Q8_0": 8}  # of `enum ggml_type` (ggml/include/ggml.h), those that are asked for


def quantize(
    base: str,
    target: str,
    file_type: str,
    threads: str,
    embeddings: str = "",
    importance: str = "",
) -> None:
    """Write `base` as `file_type` to `target`: llama-quantize with what is given and nothing else.

    Raises RuntimeError with llama.cpp's code; its reason is on stderr.
    """
    from cyllama.llama import llama_cpp

    llama_cpp.ggml_backend_load_all()
    parameters = llama_cpp.LlamaModelQuantizeParams()
    parameters.ftype = FILE_TYPES[file_type]
    parameters.nthread = int(threads)
    kept: list[Any] = []  # what the parameters point to has to stay
    if importance:
        kept += _give(parameters, Path(importance))
    if embeddings:
        parameters.token_embedding_type = TENSOR_TYPES[embeddings]
        # Where the head is a tensor of its own, it stays as the file type says.
    llama_cpp.model_quantize(base, target, parameters)
    kept.clear()


def _give(parameters: Any, importance: Path) -> list[Any]:
    """Point `parameters` to an importance matrix; return what has to live as long as they do.

    The file says what it was made with, in the keys of llama-quantize.
    """
    sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out
    import binding
    import container
    from importance import read

    plan = binding.plan_of(parameters)
    means = read(importance)
    entries = (binding.Importance * (len(means) + 1))()  # the last one, empty, ends the list
    for entry, (name, values) in zip(entries, means.items(), strict=False):
        entry.name = name.encode()
        entry.data = (ctypes.c_float * len(values)).from_buffer(values)
        entry.size = len(values)
    keys = container.read(importance).keys
    facts = {
        "file": importance.name,
        "dataset": keys["imatrix.datasets"][0],
        "entries_count": len(means),
        "chunks_count": keys["imatrix.chunk_count"],
    }
    overrides = (binding.Override * (len(facts) + 1))()
    for override, (name, value) in zip(overrides, facts.items(), strict=False):
        override.key = f"quantize.imatrix.{name}".encode()
        if isinstance(value, int):
            override.tag, override.value.int = binding.INTEGER, value
        else:
            override.tag, override.value.str = binding.TEXT, value.encode()[:127]
    plan.imatrix, plan.kv_overrides = entries, overrides
    return [entries, overrides, means]


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
