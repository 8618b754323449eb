"""onnxruntime itself: proves that a file runs, with its key-value cache.

    python -I generate.py MODEL TOKENIZER RESULT PROMPT TOKENS THREADS

A program of its own: what the runtime takes goes when it ends. numpy and tokenizers only.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Model:
    """A decoder with its cache, one sequence at a time."""

    def __init__(self, path: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if Path(path).name == "model.onnx":
            # Full floats stay in the mapped file: a repacked copy would take as much again.
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._cache = {
            name: np.zeros(
                (1, value.shape[1], 0, value.shape[3]),
                TYPES[value.type],
            )
            for name, value in self._inputs.items()
            if name.startswith("past_key_values.")
        }
        self._seen = 0

    def step(self, tokens: list[int]) -> np.ndarray:
        """The logits after the last of `tokens`, which follow on those seen before."""
        first, self._seen = self._seen, self._seen + len(tokens)
        given: dict[str, Any] = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, self._seen), np.int64),
            "position_ids": np.arange(first, self._seen, dtype=np.int64)[None],
        }
        known = {name: value for name, value in given.items() if name in self._inputs}
        values = self._session.run(None, known | self._cache)
        found = dict(zip(self._outputs, values, strict=True))
        for name in self._cache:
            self._cache[name] = found[name.replace("past_key_values.", "present.")]
            if self._cache[name].shape[2] != self._seen:
                raise ValueError(f"{name} did not grow with the tokens")
        logits = found["logits"][0, -1].astype(np.float32)
        if not np.isfinite(logits).all():
            raise ValueError("the model computes values that are not finite numbers")
        return logits


def generate(
    path: str, tokenizer: str, result: str, prompt: str, tokens: str, threads: str
) -> None:
    """Load, continue `prompt` greedily by `tokens` tokens, write what was seen to `result`.

    An end-of-text token does not stop it: a model that has nothing to say still has to compute.
    """
    words = Tokenizer.from_file(tokenizer)
    started = time.perf_counter()
    model = Model(path, int(threads))
    load_seconds = time.perf_counter() - started
    logits = model.step(words.encode(prompt).ids)
    seen: list[int] = []
    started = time.perf_counter()
    for _ in range(int(tokens)):
        seen.append(int(logits.argmax()))
        logits = model.step(seen[-1:])
    seconds = time.perf_counter() - started
    report = {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "prompt": prompt,
        "text": words.decode(seen, skip_special_tokens=False),
        "tokens": len(seen),
        "load_seconds": round(load_seconds, 3),
        "tokens_per_second": round(len(seen) / seconds, 1),
    }
    Path(result).write_text(json.dumps(report | {"ids": seen}), encoding="utf-8")


if __name__ == "__main__":
    generate(*sys.argv[1:])
