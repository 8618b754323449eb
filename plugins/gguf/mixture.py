"""Which type llama.cpp's quantizer gives each tensor: src/llama-quant.cpp, in Python.

A file type is a mixture: most tensors have its own type, the sensitive ones a larger one.
Standard library only. A test holds it against the quantizer, over every variant and several shapes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Weights and bytes of a block (ggml/src/ggml-common.h).
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "IQ4_NL": (32, 18),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110),
    "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
}
# The type of most tensors, where it is not called as the file type without its ending.
MAIN = {"IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S"}
# For rows that do not divide by 256.
SMALLER_BLOCKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"), "IQ4_NL"),
    **dict.fromkeys(("IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
TWO_BITS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
RICHER = ("IQ2_S", "IQ2_M")
# File types that hold tensors which llama.cpp writes with an importance matrix only.
NEEDS_MATRIX = {*TWO_BITS, "IQ3_XXS", "IQ3_XS"}
GAINS_MUCH = {"IQ3_S", "IQ3_M", "IQ4_XS", "IQ4_NL", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"}
TAKES_NONE = {"F32", "F16", "BF16", "Q8_0", "TQ1_0", "TQ2_0"}  # would write the same bytes
# Parts of names whose matrices stay in floats: small ones, or not multiplied with.
KEPT = ("_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj")
KEPT += ("ssm_conv1d", "shortconv.conv.weight", "attn_rel_b.weight", "position_embd", "token_types")
KEPT += (*(f"time_mix_{name}" for name in ("first", "w0", "w1", "w2", "v0", "v1", "v2", "a0")),)
KEPT += (*(f"time_mix_{name}" for name in ("a1", "a2", "g1", "g2", "decay_w", "lerp_fused")),)


def matrix_use(variant: str, options: dict[str, object]) -> str:
    """Whether a variant is made with an importance matrix: `must`, `can` or `no`."""
    if variant in NEEDS_MATRIX:
        return "must"
    wish = options.get("imatrix", "auto")
    if variant in TAKES_NONE or wish == "never":
        return "no"
    return "can" if wish == "always" or variant in GAINS_MUCH else "no"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the base: llama.cpp's name for it, and its sizes, columns last."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Plan:
    """What is to be made of which model."""

    file_type: str
    layers: int
    groups: int = 1
    """Query heads that share one of keys and values."""
    experts: int = 0
    architecture: str = ""
    matrix: bool = False
    embeddings: str = ""
    large: bool = False
    """A Llama of 80 layers, which llama.cpp knows by that."""


class Mixture:
    """The choices for one file. The quantizer counts as it goes, so the order of tensors counts."""

    def __init__(self, plan: Plan, tensors: Iterable[Tensor]) -> None:
        self.plan = plan
        self.tensors = sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name))
        kind = plan.file_type
        kind = kind[:-2] if kind.endswith(("_K_S", "_K_M", "_K_L")) else kind
        self.main = MAIN.get(kind, kind)
        self.values = sum(_part(tensor.name) in VALUES for tensor in self.tensors)
        self.tied = all(tensor.name != "output.weight" for tensor in self.tensors)
        self.seen = {"values": 0, "down": 0, "gate": 0, "up": 0}

    def types(self) -> dict[str, str]:
        """The type of every tensor."""
        return {tensor.name: self._type(tensor) for tensor in self.tensors}

    def _type(self, tensor: Tensor) -> str:
        name = tensor.name
        if len(tensor.shape) < 2 or not name.endswith("weight") or any(k in name for k in KEPT):
            return tensor.kind
        part = _part(name)
        if part == "token_embd" and self.plan.embeddings:
            return self.plan.embeddings
        if self.main in ("F32", "F16", "BF16"):
            return self.main
        return _fitting(self._choice(tensor, part), tensor.shape[-1])

    def _choice(self, tensor: Tensor, part: str) -> str:
        if part == "output" or (part == "token_embd" and self.tied):
            return self._output(tensor.shape[-1])
        if part == "token_embd":
            return self._embeddings()
        if self.plan.file_type in TWO_BITS:
            return self._two_bits(part)
        if part in VALUES:
            return self._value_like()
        if part in ("attn_k", "attn_q"):
            return self._query_like(part)
        if part == "ffn_down":
            return self._down(tensor.name)
        if part == "attn_output":
            return self._attention_output()
        if part in ("ffn_gate", "ffn_up"):
            return self._gate_like(part[4:], tensor.name)
        return self.main

    def _output(self, columns: int) -> str:
        if self.plan.architecture == "falcon" or columns % BLOCKS[self.main][0]:
            return "Q8_0"
        if self.plan.file_type in (*TWO_BITS, "IQ3_XXS"):
            return "Q5_K"
        return "Q8_0" if self.main == "Q8_0" else "Q6_K"

    def _embeddings(self) -> str:
        kind = self.plan.file_type
        if kind in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
            return "Q2_K"
        if kind in (*RICHER, "IQ3_XXS"):
            return "IQ3_S"
        return "Q4_K" if kind in ("TQ1_0", "TQ2_0") else self.main

    def _two_bits(self, part: str) -> str:
        richer = self.plan.file_type in RICHER
        if part in VALUES:
            if self.plan.groups >= 4 or self.plan.experts >= 4:
                return "Q4_K"
            return "IQ3_S" if richer else "Q2_K"
        if part == "attn_k" and self.plan.experts == 8:
            return "Q4_K"
        if part == "ffn_down":
            early = self._next("down") < self.plan.layers // 8
            return ("IQ3_S" if richer else "Q2_K") if early else self.main
        if part == "attn_output":
            if self.plan.experts == 8:
                return "Q5_K"
            if self.plan.file_type in ("IQ1_S", "IQ1_M"):
                return "IQ2_XXS"
            return "IQ3_S" if richer else self.main
        return self.main

    def _value_like(self) -> str:
        index, plan = self._next("values"), self.plan
        kind, shared = plan.file_type, plan.groups >= 4
        choice = self.main
        if kind == "Q2_K":
            choice = "Q4_K" if shared else "Q3_K"
        elif kind == "IQ3_XXS":
            choice = "Q4_K" if shared else ("IQ3_XXS" if plan.matrix else "IQ3_S")
        elif (kind in ("IQ3_XS", "IQ3_S") and shared) or kind == "IQ3_M":
            choice = "Q4_K"
        elif kind == "Q3_K_M":
            choice = "Q5_K" if index < 2 else "Q4_K"
        elif kind == "Q3_K_L" or (kind in ("IQ4_NL", "IQ4_XS") and shared):
            choice = "Q5_K"
        elif kind in ("Q4_K_M", "Q5_K_M") and _more_bits(index, self.values):
            choice = "Q6_K"
        elif kind == "Q4_K_S" and index < 4:
            choice = "Q5_K"
        if plan.large and choice in ("Q3_K", "Q4_K"):
            choice = "Q5_K"
        return "Q8_0" if plan.experts == 8 else choice

    def _query_like(self, part: str) -> str:
        if part == "attn_k" and self.plan.experts == 8:
            return "Q8_0"
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self.plan.file_type, self.main)

    def _down(self, name: str) -> str:
        plan, layers = self.plan, self.plan.layers
        layer = self._place("down", name)
        kind, falcon = plan.file_type, plan.architecture == "falcon"
        early, more = layer < layers // 8, _more_bits(layer, layers)
        if kind == "Q2_K":
            return "Q3_K"
        if kind == "IQ3_XXS" and not plan.matrix:
            return "Q4_K" if early else "Q3_K"
        if kind == "Q3_K_M":
            if layer < layers // 16:
                return "Q5_K"
            return "Q4_K" if not falcon or more else "Q3_K"
        if kind == "IQ3_M" and (early or (plan.experts == 8 and more)):
            return "Q4_K"
        if kind == "Q3_K_L":
            return "Q4_K" if falcon else "Q5_K"
        if kind == "Q4_K_M" and falcon:
            return "Q6_K" if layer < layers // 16 else "Q5_K" if more else "Q4_K"
        if kind in ("Q4_K_M", "Q5_K_M") and more:
            return "Q6_K"
        if early and kind in ("IQ4_NL", "IQ4_XS") and not plan.matrix:
            return "Q5_K"
        if kind == "Q4_K_S" and not falcon and early:
            return "Q5_K"
        if kind in ("Q4_0", "Q5_0") and plan.matrix and early:
            return "Q4_1" if kind == "Q4_0" else "Q5_1"
        return self.main

    def _attention_output(self) -> str:
        kind = self.plan.file_type
        if self.plan.architecture == "falcon":
            return "Q4_K" if kind == "Q3_K_L" else self.main
        if self.plan.experts == 8:
            small = kind.startswith(("Q2_K", "IQ3", "Q3_K_S", "Q3_K_M", "IQ4", "Q4_K"))
            return "Q5_K" if small else self.main
        choices = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
        return choices.get(kind, "Q4_K" if kind == "IQ3_M" else self.main)

    def _gate_like(self, which: str, name: str) -> str:
        layer, layers = self._place(which, name), self.plan.layers
        middle = layers // 8 <= layer < 7 * layers // 8
        return "IQ3_XXS" if self.plan.file_type == "IQ3_XS" and middle else self.main

    def _place(self, which: str, name: str) -> int:
        """The layer as the quantizer sees it: by name with experts, else by counting."""
        index = self._next(which)
        return _layer(name) if self.plan.experts > 1 else index

    def _next(self, which: str) -> int:
        self.seen[which] += 1
        return self.seen[which] - 1


VALUES = ("attn_v", "attn_qkv", "attn_kv_b")


def size(kind: str, shape: tuple[int, ...]) -> int:
    """The bytes of a tensor in a type."""
    count = 1
    for length in shape:
        count *= length
    weights, used = BLOCKS[kind]
    return count // weights * used


def _part(name: str) -> str:
    """What a tensor is for, as the quantizer finds it in the name."""
    if name == "per_layer_token_embd.weight":
        return "token_embd"
    part = name.removesuffix(".weight").rpartition(".")[2]
    for longer in ("ffn_up", "ffn_gate", "ffn_down"):
        if part.startswith(longer):
            return longer
    return part


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blk.") else -1


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: str, columns: int) -> str:
    """The type, or the next larger one whose blocks divide a row."""
    if columns % BLOCKS[kind][0] == 0:
        return kind
    kind = SMALLER_BLOCKS.get(kind, "F16")
    return "F16" if columns % BLOCKS[kind][0] else kind
