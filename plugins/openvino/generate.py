"""Loads an artefact in OpenVINO GenAI and generates; a child process.

python generate.py ARTEFACT THREADS
"""

import importlib.metadata
import math
import sys
import time

from progress import say

PROMPT = "Once upon a time"
COUNT = 16


def main(artefact: str, threads: int) -> None:
    """Continue the prompt, always by the likeliest token, and tell the parent what came."""
    import openvino_genai

    say(done=0.2, message="loading")
    start = time.monotonic()
    pipeline = openvino_genai.LLMPipeline(artefact, "CPU", INFERENCE_NUM_THREADS=threads)
    loaded = time.monotonic()
    say(done=0.7, message="generating")
    result = pipeline.generate(
        [PROMPT],
        max_new_tokens=COUNT,
        do_sample=False,
        num_beams=1,
        ignore_eos=True,
        apply_chat_template=False,
    )
    seconds = time.monotonic() - loaded
    tokens = result.perf_metrics.get_num_generated_tokens()
    say(
        seen={
            "runtime": f"OpenVINO GenAI {importlib.metadata.version('openvino-genai')}",
            "prompt": PROMPT,
            "text": result.texts[0],
            "tokens": tokens,
            "load_seconds": round(loaded - start, 3),
            "tokens_per_second": round(tokens / seconds, 2),
        },
        finite=all(math.isfinite(score) for score in result.scores),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
