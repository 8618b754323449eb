"""Quantizes the weights of an exported graph with NNCF; a child process.

    python quantize.py EXPORT OUTPUT VARIANT OPTIONS

OPTIONS is JSON. The graph's weights stay in its file, which is mapped: only what is made of them is
in memory.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ir import MODEL, normalise
from progress import say
from recipes import RECIPES, SMALLEST_GROUP, Recipe, aware

CALIBRATION = Path(__file__).with_name("calibration.txt")
TOKENS = 128  # of a sample: some sentences, and little memory for what flows between layers


class Progress:
    """What NNCF goes through, told to the parent instead of drawn on a terminal.

    NNCF goes through the layers once for each of its steps. How many there will be follows from
    the options; each gets the same part of what is left.
    """

    def __init__(self, steps: int) -> None:
        self.done, self.left = 0.0, steps

    def track(
        self,
        sequence: Iterable[Any],
        *,
        description: str,
        total: int | None = None,
        weights: Sequence[float] | None = None,
    ) -> Iterator[Any]:
        """What NNCF calls by this name and with these arguments."""
        items = list(sequence) if total is None else sequence
        count = total if total is not None else len(items)  # type: ignore[arg-type]
        shares = list(weights) if weights is not None else [1] * max(1, count)
        part = (1 - self.done) / self.left
        start, passed = self.done, 0.0
        for number, item in enumerate(items):
            yield item
            passed += shares[number]
            self.done = start + part * min(1, passed / max(1, sum(shares)))
            say(done=self.done, message=description.lower())
        self.left = max(1, self.left - 1)

    def show(self) -> None:
        """Have NNCF's steps tell how far they are."""
        from nncf.common.tensor_statistics import aggregator
        from nncf.quantization.algorithms.weight_compression import (
            algorithm,
            awq,
            mixed_precision,
            scale_estimation,
        )

        for step in (aggregator, algorithm, awq, mixed_precision, scale_estimation):
            step.track = self.track


def steps(recipe: Recipe, options: dict[str, Any]) -> int:
    """How often NNCF will go through the layers, or through the samples."""
    if recipe.bits != 4:
        return 1
    chosen = [options["awq"], options["scale_estimation"], options["ratio"] < 1]
    return 1 + aware(recipe, options) + sum(map(bool, chosen))


def passages() -> list[str]:
    """The calibration text, piece by piece."""
    text = CALIBRATION.read_text("utf-8")
    return [piece.strip() for piece in re.split(r"\n={8,}\n", text) if piece.strip()]


def samples(export: Path, graph: Any) -> list[dict[str, Any]]:
    """The calibration text as inputs of the graph."""
    import numpy as np
    import openvino_genai

    names = {one.get_any_name() for one in graph.inputs}
    tokenizer = openvino_genai.Tokenizer(str(export))
    found = []
    for passage in passages():
        tokens = np.array(tokenizer.encode(passage).input_ids.data, np.int64)
        for start in range(0, tokens.shape[1], TOKENS):
            part = np.ascontiguousarray(tokens[:, start : start + TOKENS])
            given = {
                "input_ids": part,
                "attention_mask": np.ones_like(part),
                "position_ids": np.arange(part.shape[1], dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            found.append({name: given[name] for name in names})
    return found


def main(export: Path, output: Path, variant: str, options: dict[str, Any]) -> None:
    """Write a quantized variant of a graph."""
    import nncf
    import openvino

    recipe = RECIPES[variant]
    Progress(steps(recipe, options)).show()
    graph = openvino.Core().read_model(export / f"{MODEL}.xml")
    how: dict[str, Any] = {}
    if recipe.bits == 4:
        how |= {"group_size": options["group_size"], "ratio": options["ratio"]}
        # A row that does not divide by the group gets a smaller one and is not left in FP16.
        how["advanced_parameters"] = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST,
            min_adjusted_group_size=SMALLEST_GROUP,
        )
    if aware(recipe, options):
        inputs = samples(export, graph)
        how |= {
            "dataset": nncf.Dataset(inputs),
            "subset_size": len(inputs),
            "awq": options["awq"],
            "scale_estimation": options["scale_estimation"],
        }
    graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode(recipe.mode), **how)
    say(done=1, message="writing the graph")
    openvino.save_model(graph, output / f"{MODEL}.xml", compress_to_fp16=False)
    normalise(output / f"{MODEL}.xml")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
