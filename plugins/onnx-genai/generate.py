"""Loads an artefact in ONNX Runtime GenAI: `generate.py FOLDER RESULT PROMPT TOKENS THREADS`."""

import json
import sys
import time
from pathlib import Path

import onnxruntime_genai


def main(folder: str, result: str, prompt: str, tokens: int, threads: int) -> None:
    """Continue the prompt by `tokens` tokens, always the likeliest; write what was seen."""
    began = time.perf_counter()
    settings = onnxruntime_genai.Config(folder)
    options = {"intra_op_num_threads": threads, "session.intra_op.allow_spinning": "0"}
    settings.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = onnxruntime_genai.Model(settings)
    tokenizer = onnxruntime_genai.Tokenizer(model)
    loaded = time.perf_counter()
    given = tokenizer.encode(prompt)
    parameters = onnxruntime_genai.GeneratorParams(model)
    length = len(given) + tokens
    # The least is the most: an end that comes early is no reason to stop here.
    parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(given)
    made: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        made.append(int(generator.get_next_tokens()[0]))
    took = time.perf_counter() - loaded
    if not made:
        raise RuntimeError("no token was generated")
    seen = {
        "runtime": f"onnxruntime-genai {onnxruntime_genai.__version__}",
        "prompt": prompt,
        "text": tokenizer.decode(made),
        "tokens": len(made),
        "load_seconds": round(loaded - began, 3),
        "tokens_per_second": round(len(made) / took, 1),
    }
    Path(result).write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
