"""llama.cpp's C interface, where the Python bindings do not reach.

`open_library`: the library in the wheel xllamacpp exports the C functions, one of which lets a
callback see every multiplication. No wheel with llama-imatrix itself is there for this Python.
`plan_of`: cyllama's quantizer takes an importance matrix, but its Python class has no way to set
one; the C structure inside it has.
The layouts are those of include/llama.h and ggml/include/ggml.h, and both functions hold them
against what the libraries themselves say, so that a change of pins cannot go unseen.
"""

import ctypes
import importlib.util
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    Union,
    c_bool,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int8,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

TENSOR_TYPES = 42  # GGML_TYPE_COUNT, which stands for "no type given"


class Tensor(Structure):
    """ggml_tensor, as far as its name; what lies behind is only ever pointed at."""


Tensor._fields_ = [
    ("type", c_int32),
    ("buffer", c_void_p),
    ("ne", c_int64 * 4),
    ("nb", c_size_t * 4),
    ("op", c_int32),
    ("op_params", c_int32 * 16),
    ("flags", c_int32),
    ("src", POINTER(Tensor) * 10),
    ("view_src", c_void_p),
    ("view_offs", c_size_t),
    ("data", c_void_p),
    ("name", c_char * 64),
]

Watcher = CFUNCTYPE(c_bool, POINTER(Tensor), c_bool, c_void_p)
"""ggml_backend_sched_eval_callback: asked before a node, then told after it."""


class ModelParams(Structure):
    """llama_model_params."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("use_mmap", c_bool),
        ("use_direct_io", c_bool),
        ("use_mlock", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
    ]


class ContextParams(Structure):
    """llama_context_params."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", Watcher),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
    ]


class Batch(Structure):
    """llama_batch."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


class Importance(Structure):
    """llama_model_imatrix_data: of one tensor."""

    _fields_ = [("name", c_char_p), ("data", POINTER(c_float)), ("size", c_size_t)]


class _Value(Union):
    _fields_ = [
        ("int", c_int64),
        ("float", c_double),
        ("bool", c_bool),
        ("str", c_char * 128),
    ]


class Override(Structure):
    """llama_model_kv_override: a key that is written into the file."""

    _fields_ = [("tag", c_int32), ("key", c_char * 128), ("value", _Value)]


INTEGER, TEXT = 0, 3  # tags of an Override


class QuantizeParams(Structure):
    """llama_model_quantize_params."""

    _fields_ = [
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("output_tensor_type", c_int32),
        ("token_embedding_type", c_int32),
        ("allow_requantize", c_bool),
        ("quantize_output_tensor", c_bool),
        ("only_copy", c_bool),
        ("pure", c_bool),
        ("keep_split", c_bool),
        ("dry_run", c_bool),
        ("imatrix", POINTER(Importance)),
        ("kv_overrides", POINTER(Override)),
        ("tt_overrides", c_void_p),
        ("prune_layers", c_void_p),
    ]


def plan_of(parameters: Any) -> QuantizeParams:
    """The C structure inside a cyllama LlamaModelQuantizeParams: what is set here is used.

    Raises OSError where it is not found. It lives as long as `parameters`.
    """
    start, size = id(parameters), type(parameters).__basicsize__
    pointer = ctypes.sizeof(c_void_p)
    # Behind the head of the object, and behind the table of its methods if it has one.
    for offset in range(2 * pointer, size - ctypes.sizeof(QuantizeParams) + 1, pointer):
        plan = QuantizeParams.from_address(start + offset)
        seen = (plan.nthread, plan.ftype, plan.output_tensor_type, plan.token_embedding_type)
        expected = (parameters.nthread, parameters.ftype)
        expected += (parameters.output_tensor_type, parameters.token_embedding_type)
        if seen == expected and plan.quantize_output_tensor and not plan.imatrix:
            return plan
    raise OSError("cyllama's quantizer parameters are not laid out as this plugin knows them")


_SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_vocab_bos": (c_int32, [c_void_p]),
    "llama_vocab_get_add_bos": (c_bool, [c_void_p]),
    "llama_tokenize": (
        c_int32,
        [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool],
    ),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "ggml_op_name": (c_char_p, [c_int32]),
}


@cache
def open_library() -> ctypes.CDLL:
    """The library with the types of what is called. Raises OSError where its layouts differ."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("xllamacpp is not installed in this environment")
    (path,) = Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    context = library.llama_context_default_params()
    seen = (context.n_ctx, context.n_batch, context.n_ubatch, context.rope_scaling_type)
    seen += (context.type_k, context.type_v, context.n_samplers, bool(context.cb_eval))
    seen += (library.llama_model_default_params().use_mmap,)
    f16 = 1
    expected = (512, 2048, 512, -1, f16, f16, 0, False, True)
    if seen != expected:
        raise OSError(f"llama.cpp's structures are not laid out as this plugin knows them: {seen}")
    library.llama_backend_init()
    return library
