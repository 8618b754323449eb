"""What a variant will cost, from headers alone. Standard library only.

The sizes follow from what the builder does with each tensor; what the graph takes without weights
was measured, and a test holds all of it against conversions.
"""

from typing import Any

# Bytes of the graph, of the whole model and of each layer.
GRAPH = {"gemma3_text": (3_600, 10_600), "phi3": (13_000, 7_200), "qwen3": (3_600, 8_600)}
PLAIN = (4_400, 7_600)
QUANTIZED = 260  # bytes that one quantized product adds to it
TEXTS = 1_900  # genai_config.json and tokenizer_config.json
INTERPRETER = 50_000_000  # the parent of the processes
BUILDER = 400_000_000  # the builder with torch, transformers and onnxruntime
PIECE = 4_000_000  # elements that are converted at once: stream.py
RUNTIME = 250_000_000  # the runtime of the check, without weights
SHARED = {"cuda", "dml", "webgpu"}


def estimate(
    config: dict[str, Any],
    files: dict[str, int],
    tensors: dict[str, Any],
    variant: str,
    options: dict[str, Any],
) -> dict[str, int]:
    """Bytes of the artefact, and of the memory and scratch that its conversion takes."""
    provider, precision = variant.split("-")
    width = 4 if variant in ("cpu-fp32", "cpu-int4") else 2
    layers = config["num_hidden_layers"]
    tied = config.get("tie_word_embeddings", config["model_type"] == "gemma3_text")
    weights, quantized, products, largest, heaviest = 0, 0, 0, 0, 0
    shapes = {name: each["shape"] for name, each in tensors.items()}
    if tied:
        shapes.pop("lm_head.weight", None)
    for name, shape in shapes.items():
        elements = _product(shape)
        embedding = name.endswith("embed_tokens.weight")
        if len(shape) != 2 or precision != "int4" or (embedding and not tied):
            weights += width * elements
        else:
            bits = _bits(name, options["algorithm"], layers, head=embedding)
            one = _quantized(shape, bits, width, options)
            quantized, heaviest = quantized + one, max(heaviest, one)
            products += 1
        largest = max(largest, elements)
    fixed, layer = GRAPH.get(config["model_type"], PLAIN)
    graph = fixed + layer * layers + QUANTIZED * products
    data = weights + quantized + width * _angles(config)
    size = graph + data + _texts(files)
    scratch = quantized + 100_000 + sum(files.get(name, 0) for name in ("config.json",))
    # A piece in the source's type, in that of the inputs, quantized, and as the tool's messages;
    # the angles in float32 with what they are computed from; the parts of a weight and their whole.
    building = BUILDER + 16 * min(largest, PIECE) + 16 * _angles(config) + 2 * heaviest
    memory = building
    if provider == "cpu":
        # Weights are repacked or converted for the processor while the originals are held.
        times = {"int4": 2.1, "fp32": 1.3, "fp16": 3.2}[precision]
        memory = max(memory, RUNTIME + int(times * data) + _cache(config, width))
    return {"size": size, "memory": INTERPRETER + memory, "scratch": scratch}


def _bits(name: str, algorithm: str, layers: int, *, head: bool) -> int:
    """The bits of a quantized weight: some algorithms keep the sensitive ones at 8."""
    if head or name == "lm_head.weight":
        return 8 if algorithm.endswith(("_last", "_mixed")) else 4
    if algorithm != "k_quant_mixed":
        return 4
    number = int(name.split("layers.")[1].split(".")[0])
    eighth = layers / 8
    early_or_late = number < eighth or number >= 7 * eighth
    kept = early_or_late or (number - round(eighth)) % 3 == 2
    return 8 if kept and any(part in name for part in (".down_proj.", "v_proj", "qkv_proj")) else 4


def _quantized(shape: list[int], bits: int, width: int, options: dict[str, Any]) -> int:
    """Bytes of codes, scales and zero points of a matrix: its blocks lie along its rows."""
    rows, columns = shape
    block = options["block_size"]
    blocks = -(-columns // block)
    size = rows * blocks * (block * bits // 8 + width)
    if options["algorithm"].startswith("k_quant"):
        size += rows * -(-blocks * bits // 8)
    return size


def _angles(config: dict[str, Any]) -> int:
    """Elements of the tables of cosines and sines."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rotated = int(head * config.get("partial_rotary_factor", 1.0))
    positions = config["max_position_embeddings"]
    if config["model_type"] == "gemma3_text":
        positions *= 2  # one for local layers, one for global ones
    if config["model_type"] == "phi3" and config.get("rope_scaling"):
        positions += config.get("original_max_position_embeddings", 0)
    return positions * rotated


def _cache(config: dict[str, Any], width: int) -> int:
    """Bytes of keys and values of the few positions that the check needs."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or config["num_attention_heads"]
    return 4 * width * config["num_hidden_layers"] * groups * head * 64


def _texts(files: dict[str, int]) -> int:
    """Bytes of the configuration and the tokenizer."""
    size = TEXTS + files.get("chat_template.jinja", 0)
    if "tokenizer.json" in files:
        return size + files["tokenizer.json"]
    return size + int(5.6 * files.get("tokenizer.model", 0))


def _product(shape: list[int]) -> int:
    elements = 1
    for length in shape:
        elements *= length
    return elements
