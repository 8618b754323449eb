"""The fp16 variant of an exported graph; a child process.

    python half.py EXPORT OUTPUT

A graph in BF16 becomes one in FP16 without being loaded: a number has 16 bits in both, so that
every constant keeps its place, and the .bin is rewritten piece by piece. One in FP16 is taken as it
is. What is in FP32 is read from its mapped file and written by OpenVINO, a constant at a time.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ir import MODEL, constants, decompressing, normalise, recast
from progress import say

PIECE = 1 << 24  # bytes that are read at once
LEAST = 16  # rows and columns of the smallest matrix that counts as weights


def recast_bin(source: Path, target: Path, places: list[tuple[int, int]]) -> bool:
    """Copy a .bin with the BF16 numbers at `places` as FP16; False if one does not fit."""
    total, fits = source.stat().st_size, True
    with source.open("rb") as old, target.open("wb") as new:
        for offset, size in [*places, (total, 0)]:
            _copy(old, new, offset - old.tell())
            while size:
                piece = old.read(min(PIECE, size))
                if not piece:
                    raise EOFError("the graph names numbers beyond the end of its file")
                size -= len(piece)
                numbers = (np.frombuffer(piece, "<u2").astype("<u4") << 16).view("<f4")
                with np.errstate(over="ignore"):
                    halves = numbers.astype("<f2")
                fits = fits and bool((np.isfinite(halves) | ~np.isfinite(numbers)).all())
                new.write(halves.tobytes())
                say(done=0.5 * old.tell() / max(1, total), message="writing FP16")
    return fits


def _copy(old: BinaryIO, new: BinaryIO, count: int) -> None:
    while count:
        piece = old.read(min(PIECE, count))
        if not piece:
            raise EOFError("the graph names numbers beyond the end of its file")
        new.write(piece)
        count -= len(piece)


def compress(xml: Path, output: Path) -> bool:
    """Write a graph with its matrices of FP32 in FP16; False if a number does not fit.

    Not OpenVINO's own compression: that rounds every constant, and with RoPE's frequencies in FP16
    the angles at 640 tokens are a quarter of a radian off.
    """
    import openvino
    from openvino import opset13

    model = openvino.Core().read_model(xml)
    limit = float(np.finfo(np.float16).max)
    names = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        if len(node.shape) != 2 or min(node.shape) < LEAST:
            continue
        halves = np.empty(node.shape, np.float16)
        pieces = max(1, node.data.nbytes // PIECE)
        for rows, halved in zip(
            np.array_split(node.data, pieces), np.array_split(halves, pieces), strict=True
        ):
            if np.abs(rows).max() > limit:
                return False
            halved[...] = rows
        readers = node.output(0).get_target_inputs()
        narrow = opset13.constant(halves)
        narrow.set_friendly_name(f"{node.get_friendly_name()}/half")
        wide = opset13.convert(narrow, "f32")
        wide.set_friendly_name(node.get_friendly_name())
        names.append(wide.get_friendly_name())
        for reader in readers:
            reader.replace_source_output(wide.output(0))
    say(done=0.5, message="writing FP16")
    made = output / f"{MODEL}.xml"
    openvino.save_model(model, made, compress_to_fp16=False)
    made.write_text(decompressing(made.read_text("utf-8"), names), "utf-8")
    normalise(made)
    return True


def main(export: Path, output: Path) -> None:
    """Write the fp16 variant of a graph."""
    xml = export / f"{MODEL}.xml"
    text = xml.read_text("utf-8")
    if places := constants(text, "bf16"):
        # An embedding that scales (Gemma 3) is exported in FP32 beside the BF16 of all others.
        mixed = re.search(r'element_type="f32" shape="\d{3,}, ?\d{3,}"', text) is not None
        target = output / ("recast" if mixed else MODEL)
        fits = recast_bin(xml.with_suffix(".bin"), target.with_suffix(".bin"), places)
        target.with_suffix(".xml").write_text(recast(text), "utf-8")
        if mixed:
            fits = compress(target.with_suffix(".xml"), output) and fits
            for suffix in (".xml", ".bin"):
                target.with_suffix(suffix).unlink()
    elif re.search(r'element_type="f16" shape="\d+, ?\d+"', text):
        fits = True
        for suffix in (".xml", ".bin"):
            shutil.copyfile(xml.with_suffix(suffix), output / f"{MODEL}{suffix}")
    else:
        fits = compress(xml, output)
    say(fits=fits)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
