"""Looks through an artefact that cannot be run here: `inspect_graph.py FOLDER RESULT`.

Every value that a node reads has to be there before it (onnx's own checker refuses the operators
that onnxruntime adds to the standard domain), the weights have to lie within their file, and the
inputs and outputs that genai_config.json names have to be the graph's.
"""

import json
import sys
from pathlib import Path

import onnx


def main(folder: Path, result: Path) -> None:
    """Write what was seen; raises on what does not fit."""
    path = folder / "model.onnx"
    graph = onnx.load(str(path), load_external_data=False).graph
    known = {"", *(each.name for each in [*graph.input, *graph.initializer])}
    for node in graph.node:
        if missing := set(node.input) - known:
            raise ValueError(f"{node.name} reads {sorted(missing)[0]}, which nothing gives")
        known |= set(node.output)
    size = (folder / "model.onnx.data").stat().st_size
    for tensor in graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place and int(place["offset"]) + int(place["length"]) > size:
            raise ValueError(f"the weight {tensor.name} reaches over the end of its file")
    decoder = json.loads((folder / "genai_config.json").read_text("utf-8"))["model"]["decoder"]
    for side, values in (("inputs", graph.input), ("outputs", graph.output)):
        there = {value.name for value in values}
        for name in decoder[side].values():
            numbers = range(decoder["num_hidden_layers"]) if "%d" in name else [None]
            for number in numbers:
                wanted = name if number is None else name % number
                if wanted not in there:
                    raise ValueError(f"genai_config.json names {wanted}, which the graph has not")
    provider = folder.name.partition("-")[0]
    note = (
        f"Not run: there is no device for {provider} here. Looked at: {len(graph.node)} nodes read"
        f" only values that are there before them, {len(graph.initializer)} weights lie within"
        " their file, genai_config.json names the graph's inputs and outputs."
    )
    result.write_text(json.dumps({"ran": False, "note": note}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
