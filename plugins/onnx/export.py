"""The graph of a model, without its weights: optimum's configuration and patches, torch's exporter.

    python -I export.py SOURCE FOLDER

SOURCE holds config.json (cleaned: see files.py) and the tokenizer; FOLDER gets graph.onnx, in which
every weight is an input under the name that the checkpoint has for it, and tokenizer.json.

The model is built on pages of memory that are never written, so that tracing needs none for the
weights; its vocabulary is a few tokens wide, because no other part of the graph depends on it.
onnxruntime then folds constants and drops what is there twice: its basic level, which every
runtime of ONNX can read.

A program of its own: torch's memory goes when it ends.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import optimum.exporters.onnx.model_configs as known
import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.modeling_utils import PreTrainedModel, no_init_weights

OPSET = 18
TOKENS = 64  # of the vocabulary that is traced
# Architectures that transformers has and optimum does not: decoders with Llama's cache and inputs.
LIKE_LLAMA = ("bitnet", "ernie4_5", "exaone4", "hunyuan_v1_dense", "seed_oss")


class Product(torch.nn.Module):
    """A linear layer whose matrix lies as ONNX's MatMul takes it, turned against torch's.

    With torch's own the exporter would turn every matrix, and keep all of the results in memory.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(_empty(tuple(linear.weight.shape)[::-1]), False)
        self.bias = linear.bias

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        product = torch.matmul(tokens, self.weight)
        return product if self.bias is None else product + self.bias


class TernaryProduct(Product):
    """A layer of BitNet: weights -1, 0 and 1, with one scale for all of them.

    Activations stay as they are, where transformers rounds them to 8 bits: see README, "BitNet".
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear)
        self.weight_scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) * self.weight_scale


def _empty(shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros on memory that is never written, and so takes up none."""
    return torch.from_numpy(np.zeros(shape, np.float32))


def build(config: PretrainedConfig, *, ternary: bool) -> PreTrainedModel:
    """The model on memory that holds zeros and takes up none."""
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="sdpa"
        )
    product = TernaryProduct if ternary else Product
    head = (
        model.get_output_embeddings()
    )  # it may be the table of tokens, which lies as torch has it
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child is not head:
                setattr(module, name, product(child))
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = _empty(tuple(parameter.shape))
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
    model.tie_weights()
    for module in model.modules():
        if getattr(module, "rope_type", None) == "longrope":
            _follow_length(module)
    return model.eval()


def _follow_length(rope: torch.nn.Module) -> None:
    """Let the graph choose between the short and the long factors, by the positions it is given.

    transformers chooses in Python, so that a trace would keep what the trace's own input chose.
    """
    settings = rope.config
    limit = getattr(settings, "original_max_position_embeddings", settings.max_position_embeddings)
    short, _ = rope.rope_init_fn(settings, None)
    long, _ = rope.rope_init_fn(settings, None, seq_len=limit + 1)
    del rope.inv_freq
    rope.rope_type = "default"  # which switches transformers' own choice off

    def choose(module: torch.nn.Module, positions: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = named["position_ids"] if "position_ids" in named else positions[1]
        object.__setattr__(module, "inv_freq", torch.where(given.max() + 1 > limit, long, short))

    rope.register_forward_pre_hook(choose, with_kwargs=True)


def describe(config: PretrainedConfig) -> OnnxConfig:
    """optimum's description of inputs and outputs, always with position_ids."""
    if config.model_type in LIKE_LLAMA:
        constructor: Any = known.LlamaOnnxConfig
    else:
        task = "text-generation-with-past"
        constructor = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=config.model_type, task=task, library_name="transformers"
        ).func

    class WithPositions(constructor):
        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            axes = {0: "batch_size", 1: "sequence_length"}
            return super().inputs | {"position_ids": axes}

    return WithPositions(config, task="text-generation", use_past=True, use_past_in_inputs=True)


def trace(model: PreTrainedModel, target: Path) -> None:
    """Write the model's graph; its weights stay inputs."""
    description = describe(model.config)
    example = description.generate_dummy_inputs(framework="pt", batch_size=2, sequence_length=3)
    with (
        torch.no_grad(),
        description.patch_model_for_export(model, model_kwargs={"logits_to_keep": 0}),
    ):
        inputs = description.ordered_inputs(model)
        torch.onnx.export(
            model,
            (example,),
            f=str(target),
            input_names=list(inputs),
            output_names=list(description.outputs),
            dynamic_axes=dict(inputs) | dict(description.outputs),
            opset_version=OPSET,
            do_constant_folding=False,
            export_params=False,
            # Else weights that are equal, as the stand-ins are, become one.
            keep_initializers_as_inputs=True,
            dynamo=False,
        )


def tidy(traced: Path, target: Path, vocabulary: int) -> None:
    """Let onnxruntime fold constants; give the logits their real width."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(traced), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(target))
    for output in model.graph.output:
        if output.name == "logits":
            output.type.tensor_type.shape.dim[-1].dim_value = vocabulary
    standard = [opset for opset in model.opset_import if opset.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    onnx.save(model, str(target))


def tokenizer(source: Path, target: Path) -> None:
    """Write tokenizer.json, from tokenizer.model where the source has no other."""
    if (source / "tokenizer.json").exists():
        return
    made = AutoTokenizer.from_pretrained(source, use_fast=True)
    made.backend_tokenizer.save(str(target))


def main(source: Path, folder: Path) -> None:
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    packed = (settings.pop("quantization_config", None) or {}).get("quant_method")
    config = AutoConfig.for_model(**settings)
    vocabulary = config.vocab_size
    config.vocab_size = TOKENS
    config.pad_token_id = None  # an embedding of so few has none
    model = build(config, ternary=packed == "bitnet")
    traced = folder / "traced.onnx"
    trace(model, traced)
    tidy(traced, folder / "graph.onnx", vocabulary)
    traced.unlink()
    tokenizer(source, folder / "tokenizer.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
