"""What a model is, read from its headers, its configuration and its card.

All of it is written by strangers: a value of the wrong type or size counts as absent, and nothing
here raises because of one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from hub.safetensors import BITS, Header, Tensor
from hub.tiers import precision_class, tier

MAX_FRONT_MATTER = 256 * 1024
MAX_DEPTH = 50

# How many weights one stored element holds, by the name of the method (BitNet: four ternary
# weights in a byte), where the configuration does not tell the bits.
_METHOD_BITS = {
    "bitnet": 2,
    "gptq": 4,
    "awq": 4,
    "mxfp4": 4,
    "fp8": 8,
    "bitsandbytes": 8,
    "modelopt": 4,
}
# Bits a weight that its values need, where that is less than it is stored in.
_TERNARY_BITS = 1.58

_EXPERT = re.compile(r"\.experts?\.|\.block_sparse_moe\.(input|output)_linear\b")
_BUFFER = re.compile(r"(inv_freq|position_ids|masked_bias|num_batches_tracked)$")
# Scales, zero points and tables that come with packed weights.
_COMPANION = re.compile(
    r"(\.qzeros|\.scales|\.biases|\.g_idx|_scales|_scale|_scale_inv|_scale_2|_zero_point|_g_idx"
    r"|weight_shape|\.SCB|\.weight_format|\.absmax|\.quant_map|\.nested_absmax|\.nested_quant_map"
    r"|\.quant_state\..*)$"
)
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_INPUT = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|tok_embeddings)\.weight$")
_TIED_BY_DEFAULT = ("gemma", "cohere", "gpt2", "bitnet", "t5", "falcon")

_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_ctx",
)
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE_KEYS = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k")
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "ffn_config")


@dataclass(frozen=True)
class Facts:
    """What is known of a model. None, empty or False: not said."""

    parameters: int | None = None
    active_parameters: int | None = None
    tier: str | None = None
    dtype: str | None = None
    dtypes: dict[str, int] = field(default_factory=dict)
    bits: float | None = None
    precision: str | None = None
    quantization: str | None = None
    architecture: str | None = None
    model_type: str | None = None
    context_length: int | None = None
    vocabulary: int | None = None
    license: str | None = None
    languages: list[str] = field(default_factory=list)
    pipeline_tag: str | None = None
    tags: list[str] = field(default_factory=list)
    base_model: list[str] = field(default_factory=list)
    has_chat_template: bool = False
    tied: bool | None = None
    experts: int | None = None
    experts_active: int | None = None
    generation: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON keeps them, for `repos.add_commit(facts=…)`."""
        return asdict(self)


def facts(
    config: Mapping[str, Any] | None,
    headers: Mapping[str, Header],
    card: str | None = None,
    file_names: Iterable[str] = (),
    generation_config: Mapping[str, Any] | None = None,
    tokenizer_config: Mapping[str, Any] | None = None,
) -> Facts:
    """The facts of a model from its parsed JSON files, the headers of its safetensors files by
    name, its README.md and the names of all its files.

    Every header counts: which files are the weights was decided before (hub/intake.py)."""
    settings = _Config(config)
    told = front_matter(card)
    tokenizer = _mapping(tokenizer_config)
    names = list(file_names)
    count = _count(settings, headers)
    architecture = settings.architecture()
    return Facts(
        **count,
        architecture=architecture,
        model_type=settings.text("model_type"),
        context_length=settings.number(*_CONTEXT_KEYS)
        or _whole(tokenizer.get("model_max_length"), 2**31),
        vocabulary=settings.number("vocab_size"),
        license=_license(told),
        languages=_texts(told.get("language")),
        pipeline_tag=_text(told.get("pipeline_tag")) or _pipeline(architecture),
        tags=_texts(told.get("tags"))[:50],
        base_model=_texts(told.get("base_model"))[:10],
        has_chat_template=bool(tokenizer.get("chat_template")) or any(map(_is_template, names)),
        generation=_generation(_mapping(generation_config)),
    )


def front_matter(card: str | None) -> dict[str, Any]:
    """The YAML at the head of a model card; empty where there is none that can be read."""
    text = (card or "").removeprefix("\ufeff")
    if not text.startswith("---"):
        return {}
    head, end, _rest = text[3:].partition("\n---")
    if not end or len(head) > MAX_FRONT_MATTER:
        return {}
    try:
        return _top_level(head)
    except (yaml.YAMLError, ValueError):
        return {}


def _top_level(text: str) -> dict[str, Any]:
    """The keys of a YAML mapping whose values are texts or lists of texts.

    Read from the flat stream of events: PyYAML's own constructors recurse in C, and a few hundred
    kilobytes of brackets would end the process. Every scalar stays a text: `no` is Norwegian.
    """
    found: dict[str, Any] = {}
    key: str | None = None
    depth = 0
    in_key = False
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH or (depth == 1 and isinstance(event, yaml.SequenceStartEvent)):
                return {}
            if depth == 2:
                # A collection may also be a key; it is then one without a name.
                in_key = key is None
                if key is not None:
                    found[key] = [] if isinstance(event, yaml.SequenceStartEvent) else None
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if depth == 1:
                key = "" if in_key else None
        elif isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            value = event.value if isinstance(event, yaml.ScalarEvent) else None
            if depth == 1 and key is None:
                key = value or ""
            elif depth == 1 and key is not None:
                found[key] = value
                key = None
            elif depth == 2 and key is not None and isinstance(found[key], list):
                found[key].append(value)
        elif isinstance(event, yaml.DocumentEndEvent):
            break
    return found


class _Config:
    """Reads config.json, and the part of it that describes the text model of a larger one."""

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        self.top = _mapping(config)
        inner = [_mapping(self.top.get(key)) for key in _TEXT_CONFIGS]
        self.parts = [self.top, *filter(None, inner)]

    def number(self, *keys: str) -> int | None:
        """The first of the keys that is a positive whole number."""
        for key in keys:
            for part in self.parts:
                if found := _whole(part.get(key), 2**40):
                    return found
        return None

    def text(self, key: str) -> str | None:
        return _text(self.top.get(key))

    def flag(self, key: str) -> bool | None:
        for part in self.parts:
            if isinstance(part.get(key), bool):
                return bool(part[key])
        return None

    def architecture(self) -> str | None:
        found = _texts(self.top.get("architectures"))
        return found[0] if found else None

    def quantization(self) -> Mapping[str, Any]:
        for part in self.parts:
            for key in ("quantization_config", "quantization"):
                if found := _mapping(part.get(key)):
                    return found
        return {}

    def method(self) -> str | None:
        """How the weights are packed, in the word of the configuration."""
        said = self.quantization()
        method = _text(said.get("quant_method"))
        # MLX says only the bits and the size of a group.
        return method.lower() if method else ("mlx" if "group_size" in said else None)

    def bits(self) -> int | None:
        """Bits a weight, as the configuration of the quantization says or implies."""
        said = self.quantization()
        if said.get("load_in_4bit") is True:
            return 4
        for key in ("bits", "w_bit", "num_bits", "nbits"):
            if (found := _whole(said.get(key), 8)) is not None:
                return found
        groups = _mapping(said.get("config_groups"))
        for group in groups.values():
            weights = _mapping(_mapping(group).get("weights"))
            if (found := _whole(weights.get("num_bits"), 8)) is not None:
                return found
        return _METHOD_BITS.get(self.method() or "")


def _count(config: _Config, headers: Mapping[str, Header]) -> dict[str, Any]:
    """Everything that follows from the tensors."""
    method = config.method()
    bits = config.bits()
    tensors: dict[str, Tensor] = {}
    for file in sorted(headers):
        for name, tensor in headers[file].tensors.items():
            tensors.setdefault(name, tensor)
    weights = {
        name: _weights_in(name, tensor, method, bits)
        for name, tensor in tensors.items()
        if not _is_extra(name, tensor, method)
    }
    tied = _tie(config, tensors, weights)
    experts, active = _experts(config)
    found: dict[str, Any] = {
        "quantization": method,
        "tied": tied,
        "experts": experts,
        "experts_active": active,
    }
    total = sum(weights.values())
    if not total:
        return found
    dtypes: dict[str, int] = {}
    for name, number in weights.items():
        dtype = tensors[name].dtype
        dtypes[dtype] = dtypes.get(dtype, 0) + number
    # The most common element type stands for the model.
    dtype = max(dtypes, key=lambda key: (dtypes[key], key))
    width = _width(dtype, method, bits)
    found |= {
        "parameters": total,
        "tier": str(tier(total)),
        "dtype": dtype,
        "dtypes": dtypes,
        "bits": width,
        "precision": str(precision_class(width)),
    }
    if experts and active:
        found["active_parameters"] = total - _idle(weights, experts, active)
    return found


def _is_extra(name: str, tensor: Tensor, method: str | None) -> bool:
    """Whether a tensor is no weight: a buffer, or a companion of packed weights."""
    if tensor.dtype == "BOOL" or _BUFFER.search(name):
        return True
    # GPT-2's causal mask was stored under the name of a bias.
    if name.endswith(".attn.bias") and len(tensor.shape) == 4:
        return True
    return method is not None and bool(_COMPANION.search(name))


def _weights_in(name: str, tensor: Tensor, method: str | None, bits: int | None) -> int:
    """How many weights a tensor holds, unpacked."""
    if method is None or bits is None or not _is_packed(name, tensor, method):
        return tensor.numel
    return tensor.numel * BITS[tensor.dtype] // bits


def _is_packed(name: str, tensor: Tensor, method: str) -> bool:
    if tensor.dtype in ("I32", "U32"):
        return True
    # 8-bit integers are packed where a byte holds several weights, not where it is one.
    return tensor.dtype == "U8" and (
        method in ("bitnet", "mxfp4", "bitsandbytes", "compressed-tensors", "modelopt")
        or name.endswith(("_blocks", "_packed"))
    )


def _width(dtype: str, method: str | None, bits: int | None) -> float:
    if method == "bitnet" and dtype == "U8":
        return _TERNARY_BITS
    packed = method is not None and bits is not None and dtype in ("I32", "U32", "U8")
    return float(bits if packed and bits else BITS[dtype])


def _tie(config: _Config, tensors: Mapping[str, Tensor], weights: dict[str, int]) -> bool | None:
    """Whether input and output embeddings are one matrix; a copy is taken out of `weights`."""
    inputs = [name for name in weights if _INPUT.search(name)]
    outputs = [name for name in weights if _OUTPUT.search(name)]
    said = config.flag("tie_word_embeddings")
    if not inputs:
        return said
    if not outputs:
        return True if said is None else said
    if said is None:
        said = (config.text("model_type") or "").startswith(_TIED_BY_DEFAULT)
    if said:
        shapes = {tensors[name].shape for name in inputs}
        for name in outputs:
            if tensors[name].shape in shapes:
                del weights[name]
    return said


def _experts(config: _Config) -> tuple[int | None, int | None]:
    """How many experts a layer has, and how many of them a token passes through."""
    experts = config.number(*_EXPERT_KEYS)
    active = config.number(*_ACTIVE_KEYS)
    if experts is None or experts < 2 or active is None or active > experts:
        return None, None
    return experts, active


def _idle(weights: Mapping[str, int], experts: int, active: int) -> int:
    """The number of weights in experts that a token does not pass through."""
    routed = sum(number for name, number in weights.items() if _EXPERT.search(name))
    return routed * (experts - active) // experts


def _license(told: Mapping[str, Any]) -> str | None:
    found = _texts(told.get("license"))
    name = _text(told.get("license_name"))
    if name and (not found or found[0] == "other"):
        return name
    return found[0] if found else None


def _pipeline(architecture: str | None) -> str | None:
    return "text-generation" if (architecture or "").endswith("ForCausalLM") else None


def _is_template(name: str) -> bool:
    return name in ("chat_template.jinja", "chat_template.json") or (
        name.startswith("additional_chat_templates/") and name.endswith(".jinja")
    )


def _generation(config: Mapping[str, Any]) -> dict[str, float]:
    """The sampling settings that the authors recommend."""
    found: dict[str, float] = {}
    for key in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1000:
            found[key] = value
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: object, most: int) -> int | None:
    """The value, if it is a number from 1 to `most`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= most else None


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text[:200] if text not in ("", "null", "~") and text.isprintable() else None


def _texts(value: object) -> list[str]:
    """A text or a list of texts, as a list without what is neither."""
    values = value[:1000] if isinstance(value, list) else [value]
    return [text for text in map(_text, values) if text]


_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
