"""OpenVINO's files: the graph in XML, which says what lies where in the .bin beside it."""

import re
from pathlib import Path
from xml.sax.saxutils import quoteattr

MODEL, TOKENIZER, DETOKENIZER = "openvino_model", "openvino_tokenizer", "openvino_detokenizer"

_LOCAL = re.compile(r"(<pytorch_version value=\"[^\"+]*)\+[^\"]*")
_CACHE = re.compile(r"\s*<KV_CACHE_PRECISION value=\"[^\"]*\" />")
_CONSTANT = re.compile(
    r'<data element_type="(?P<type>\w+)" shape="(?P<shape>[^"]*)"'
    r' offset="(?P<offset>\d+)" size="(?P<size>\d+)"'
)


def normalise(xml: Path) -> None:
    """Leave out of a graph's record what depends on the machine: which build of torch it was."""
    xml.write_text(_LOCAL.sub(r"\1", xml.read_text("utf-8")), "utf-8")


def without_cache_precision(text: str) -> str:
    """A graph that leaves the precision of its cache to the runtime, as quantized models do."""
    return _CACHE.sub("", text)


def constants(text: str, element: str) -> list[tuple[int, int]]:
    """Where the constants of a type lie in the .bin: (offset, size), each place once."""
    found = {
        (int(match["offset"]), int(match["size"]))
        for match in _CONSTANT.finditer(text)
        if match["type"] == element
    }
    return sorted(found)


def recast(text: str) -> str:
    """A graph whose bf16 numbers are f16."""
    text = text.replace('element_type="bf16"', 'element_type="f16"')
    text = text.replace('destination_type="bf16"', 'destination_type="f16"')
    return text.replace('precision="BF16"', 'precision="FP16"')


def decompressing(text: str, names: list[str]) -> str:
    """The same graph, with the conversions of these names marked as those of stored weights.

    A runtime keeps such weights as they are stored and widens them where it computes.
    """
    mark = '<rt_info><attribute name="decompression" version="0" /></rt_info>'
    for name in names:
        layer = f'name="{quoteattr(name)[1:-1]}" type="Convert"'
        found = text.index(layer)
        end = text.index("/>", found) + 2
        text = text[:end] + mark + text[end:]
    return text
