"""Exports a model and its tokenizer to OpenVINO with optimum-intel; a child process.

    python export.py VIEW EXPORT DTYPE

VIEW is the model's folder, without code; EXPORT, an empty folder, gets the graph with its weights
in the precision that they have (DTYPE), the graphs of the tokenizer, and the files beside them.
"""

import sys
import threading
from pathlib import Path
from typing import Any

from ir import DETOKENIZER, MODEL, TOKENIZER, normalise, without_cache_precision
from progress import say
from source import CONFIG, GENERATION
from source import TOKENIZER as TOKENIZER_FILES

TASK = "text-generation-with-past"
REFUSED = 3  # the exit code of a refusal, which was said before


def refuse(kind: str, message: str, hint: str) -> None:
    """Tell the parent why the model cannot be exported, and end."""
    say(refused=[kind, message, hint])
    sys.exit(REFUSED)


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer, by its class or, where transformers does not have it, by tokenizer.json."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (ValueError, KeyError, OSError, TypeError, AttributeError, ImportError) as error:
        try:
            return PreTrainedTokenizerFast.from_pretrained(folder)
        except (ValueError, KeyError, OSError, TypeError, AttributeError, ImportError):
            words = str(error).strip().splitlines() or [type(error).__name__]
            return refuse(
                "unsupported_tokenizer",
                f"transformers cannot read the tokenizer: {words[0][:300]}",
                "Look whether the tokenizer's files are whole, and mirror the model again.",
            )


def export_tokenizer(view: Path, export: Path) -> Any:
    """Write the graphs of tokenizer and detokenizer; the tokenizer."""
    tokenizer = tokenizer_of(view)
    # After it: what the exporter imports takes longer than to find a tokenizer unreadable.
    from optimum.exporters.openvino.convert import export_tokenizer as write

    write(tokenizer, export, task=TASK)
    for name in (TOKENIZER, DETOKENIZER):
        if not (export / f"{name}.xml").exists():
            refuse(
                "unsupported_tokenizer",
                f"openvino-tokenizers cannot convert the tokenizer {type(tokenizer).__name__}.",
                "Take another format; a later release may know it.",
            )
        normalise(export / f"{name}.xml")
    return tokenizer


def take_files(view: Path, export: Path, tokenizer: Any) -> None:
    """Put the source's tokenizer beside the graphs, in place of what the tools wrote of it."""
    for name in TOKENIZER_FILES:
        (export / name).unlink(missing_ok=True)
        if (view / name).is_file():
            (export / name).write_bytes((view / name).read_bytes())
    if not (export / "tokenizer.json").exists() and tokenizer.is_fast:
        tokenizer.backend_tokenizer.save(str(export / "tokenizer.json"))


def export_model(view: Path, export: Path, dtype: str) -> None:
    """Write the graph, with a state for its cache."""
    import openvino
    import torch
    from optimum.exporters.openvino.convert import export_from_model
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            view, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
        )
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "shape" not in str(error):
            raise
        refuse(
            "corrupt_weights",
            f"The weights do not fit config.json: {str(error).strip().splitlines()[-1][:300]}",
            "Look whether config.json and the weights belong together, and mirror the model again.",
        )
    if found["missing_keys"]:
        lacking = sorted(found["missing_keys"])
        refuse(
            "missing_weights",
            f"{len(lacking)} tensors are missing, the first is {lacking[0]}.",
            "Look whether config.json and the weights belong together, and mirror the model again.",
        )
    say(done=0.4, message="tracing the model")
    model.eval()
    written = threading.Event()
    threading.Thread(target=_grow, args=(view, export, written), daemon=True).start()
    export_from_model(model, export, task=TASK, stateful=True, patch_16bit_model=dtype != "float32")
    written.set()
    (export / CONFIG).write_bytes((view / CONFIG).read_bytes())
    if (view / GENERATION).is_file():
        (export / GENERATION).write_bytes((view / GENERATION).read_bytes())
    xml = export / f"{MODEL}.xml"
    normalise(xml)
    xml.write_text(without_cache_precision(xml.read_text("utf-8")), "utf-8")
    graph = openvino.Core().read_model(xml)
    if "beam_idx" not in {one.get_any_name() for one in graph.inputs}:
        raise ValueError("the exported graph has no state")


def _grow(view: Path, export: Path, written: threading.Event) -> None:
    """Tell while the graph is written how much of it there is."""
    total = sum(path.stat().st_size for path in view.glob("*.safetensors"))
    while not written.wait(2):
        graph = export / f"{MODEL}.bin"
        if graph.exists():
            share = min(1, graph.stat().st_size / total)
            say(done=0.7 + 0.3 * share, message="writing the graph")


def main(view: Path, export: Path, dtype: str) -> None:
    """Export the tokenizer, which fails sooner, and then the model."""
    say(done=0.02, message="reading the tokenizer")
    tokenizer = export_tokenizer(view, export)
    say(done=0.3, message="reading the model")
    export_model(view, export, dtype)
    take_files(view, export, tokenizer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
