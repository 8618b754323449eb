"""The importance matrix: how much each column of each matrix counts, as llama-imatrix measures it.

    python -I importance.py MODEL TEXT TARGET PROGRESS THREADS

llama.cpp computes the model over a text; of each matrix, the squares of what it is multiplied with
are summed up by column. The file is llama-imatrix's own GGUF: `NAME.in_sum2` and `NAME.counts`.
A program of its own, because llama.cpp may end the process that it runs in.
"""

import ctypes
import sys
from array import array
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out

import binding
import container

CHUNK = 512  # tokens that see each other: llama-imatrix's own default
CHUNKS = 32  # at most: 16 thousand tokens, beyond which little changes
BATCH = 128  # tokens at a time: the logits of a large vocabulary then take 100 MB and not 400
SMALLEST = 16  # rows: a multiplication with fewer is not one over the text
SUMS, COUNTS = ".in_sum2", ".counts"


class Collector:
    """Sums of squares by tensor, and how many rows went into them (by expert where there are)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self.error: Exception | None = None
        self._library = library
        self._kinds: dict[int, str] = {}

    def watch(self, pointer: Any, ask: bool, _: object) -> bool:
        """ggml's callback: whether a node is wanted, then the node with its inputs computed."""
        node = pointer.contents
        kind = self._kind(node.op)
        if ask:
            return kind == "MUL_MAT_ID" or (kind == "MUL_MAT" and self._wanted(node))
        try:
            name = node.src[0].contents.name.decode()
            (self._add_experts if kind == "MUL_MAT_ID" else self._add)(name, node)
        except (ValueError, IndexError) as error:  # an exception cannot cross llama.cpp
            self.error = error
            return False
        return True

    def _kind(self, op: int) -> str:
        if op not in self._kinds:
            self._kinds[op] = self._library.ggml_op_name(op).decode()
        return self._kinds[op]

    @staticmethod
    def _wanted(node: binding.Tensor) -> bool:
        inputs = node.src[1].contents
        enough = inputs.ne[1] >= SMALLEST and inputs.type == container.F32
        return enough and node.src[0].contents.name.startswith(b"blk.")

    def _add(self, name: str, node: binding.Tensor) -> None:
        import numpy as np

        weight, rows = node.src[0].contents, _array(node.src[1])
        squares = np.einsum("abij,abij->abj", rows, rows, dtype=np.float64)
        matrices = weight.ne[3] * weight.ne[2]
        # Several matrices in one tensor have their inputs side by side, perhaps shared.
        picks = [
            (outer % weight.ne[3]) * weight.ne[2] + inner % weight.ne[2]
            for outer in range(squares.shape[0])
            for inner in range(squares.shape[1])
        ]
        sums = self._of(name, matrices, weight.ne[0])
        np.add.at(sums, picks, squares.reshape(-1, weight.ne[0]))
        total = rows.shape[0] * rows.shape[1] * rows.shape[2]
        self.counts.setdefault(name, np.zeros(1))
        self.counts[name] += total // matrices

    def _add_experts(self, name: str, node: binding.Tensor) -> None:
        import numpy as np

        weight = node.src[0].contents
        rows = _array(node.src[1])[0]  # tokens, one or one for each choice, columns
        chosen = _array(node.src[2], np.int32)[0, 0]  # tokens, choices
        rows = np.broadcast_to(rows, (*chosen.shape, rows.shape[-1]))
        sums = self._of(name, weight.ne[2], weight.ne[0])
        counts = self.counts.setdefault(name, np.zeros(weight.ne[2]))
        for expert in np.unique(chosen):
            picked = rows[chosen == expert]
            sums[expert] += np.einsum("ij,ij->j", picked, picked, dtype=np.float64)
            counts[expert] += len(picked)

    def _of(self, name: str, matrices: int, columns: int) -> Any:
        import numpy as np

        return self.sums.setdefault(name, np.zeros((matrices, columns)))


def _array(pointer: Any, dtype: Any = None) -> Any:
    """A tensor's numbers as an array, outermost axis first, without copying them."""
    import numpy as np

    tensor = pointer.contents
    dtype = np.dtype(dtype or np.float32)
    span = sum((tensor.ne[i] - 1) * tensor.nb[i] for i in range(4)) + dtype.itemsize
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * span).from_address(tensor.data))
    shape, steps = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    return np.ndarray(shape, dtype, raw, strides=steps)


class Reader:
    """A model, loaded to be computed over a text."""

    def __init__(self, path: Path, threads: int, *, collect: bool) -> None:
        self.library = binding.open_library()
        wanted = self.library.llama_model_default_params()
        wanted.n_gpu_layers = 0
        wanted.use_extra_bufts = False  # the weights stay in the mapped file
        model = self.library.llama_model_load_from_file(str(path).encode(), wanted)
        if not model:
            raise ValueError(f"llama.cpp does not load {path.name}")
        self.collector = Collector(self.library)
        # A model may have learnt fewer positions than a chunk has.
        self.chunk = min(CHUNK, self.library.llama_model_n_ctx_train(model)) // BATCH * BATCH
        self.chunk = self.chunk or BATCH
        limits = self.library.llama_context_default_params()
        limits.n_ctx, limits.n_batch, limits.n_ubatch = self.chunk, BATCH, BATCH
        limits.n_threads = limits.n_threads_batch = threads
        limits.flash_attn_type = 0  # it would hide what attention multiplies
        self._watch = binding.Watcher(self.collector.watch)
        if collect:
            limits.cb_eval = self._watch
        self.context = self.library.llama_init_from_model(model, limits)
        if not self.context:
            raise ValueError(f"llama.cpp cannot compute {path.name}")
        self.vocabulary = self.library.llama_model_get_vocab(model)
        self.size = self.library.llama_vocab_n_tokens(self.vocabulary)

    def chunks(self, text: str) -> list[list[int]]:
        """The tokens of `text` in chunks, each beginning as the model wants a text to begin."""
        raw = text.encode("utf-8")
        room = (ctypes.c_int32 * (len(raw) + 8))()
        size = (self.vocabulary, raw, len(raw), room, len(room), True, False)
        tokens = list(room[: self.library.llama_tokenize(*size)])
        found = [
            tokens[start : start + self.chunk]
            for start in range(0, len(tokens) - self.chunk + 1, self.chunk)
        ][:CHUNKS]
        if self.library.llama_vocab_get_add_bos(self.vocabulary):
            first = self.library.llama_vocab_bos(self.vocabulary)
            found = [[first, *tokens[1:]] for tokens in found]
        return found

    def compute(self, tokens: list[int]) -> list[Any]:
        """Compute one chunk; the logits of its tokens, a view for each batch, valid until then."""
        memory = self.library.llama_get_memory(self.context)
        if memory:
            self.library.llama_memory_clear(memory, True)
        return [
            self._batch(tokens[start : start + BATCH], start)
            for start in range(0, len(tokens), BATCH)
        ]

    def _batch(self, tokens: list[int], start: int) -> Any:
        count = len(tokens)
        line = (ctypes.c_int32 * 1)(0)
        lines = (ctypes.POINTER(ctypes.c_int32) * count)(*[line] * count)
        batch = binding.Batch(
            n_tokens=count,
            token=(ctypes.c_int32 * count)(*tokens),
            pos=(ctypes.c_int32 * count)(*range(start, start + count)),
            n_seq_id=(ctypes.c_int32 * count)(*[1] * count),
            seq_id=lines,
            # All of them, or the last layer would leave out what nobody asks for.
            logits=(ctypes.c_int8 * count)(*[1] * count),
        )
        code = self.library.llama_decode(self.context, batch)
        if self.collector.error:
            raise ValueError(f"a tensor is not as expected: {self.collector.error}")
        if code:
            raise ValueError(f"llama.cpp cannot compute a batch of {count} tokens: code {code}")
        return self.library.llama_get_logits_ith(self.context, 0)


def collect(model: Path, text: Path, target: Path, progress: Path, threads: int) -> None:
    """Write the importance matrix of `model` over `text` to `target`.

    `progress` gets "chunks done, chunks in all" while it goes.
    """
    import numpy as np

    reader = Reader(model, threads, collect=True)
    chunks = reader.chunks(text.read_text(encoding="utf-8"))
    if not chunks:
        raise ValueError("the calibration text is shorter than one chunk in this model's tokens")
    for number, tokens in enumerate(chunks, 1):
        reader.compute(tokens)
        progress.write_text(f"{number} {len(chunks)}", encoding="utf-8")
    sums, counts = reader.collector.sums, reader.collector.counts
    if not sums:
        raise ValueError("llama.cpp multiplied no matrix of a block")
    tensors: dict[str, tuple[array, int]] = {}
    for name in sorted(sums):
        values = sums[name].astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"the model computes values that are not finite numbers at {name}")
        tensors[name + SUMS] = (array("f", values.tobytes()), values.shape[1])
        tensors[name + COUNTS] = (array("f", counts[name].astype(np.float32).tobytes()), 1)
    keys = {
        "general.type": "imatrix",
        "imatrix.datasets": [text.name],
        "imatrix.chunk_count": len(chunks),
        "imatrix.chunk_size": reader.chunk,
    }
    container.write(target, keys, tensors)


def read(path: Path) -> dict[str, array]:
    """The mean squares by tensor, as the quantizer takes them.

    An expert that no token was sent to counts evenly, as in llama-quantize.
    """
    found = {name: (shape, values) for name, shape, values in container.floats(path)}
    means = {}
    for name, (shape, sums) in found.items():
        if not name.endswith(SUMS):
            continue
        name = name.removesuffix(SUMS)
        columns, mean = shape[0], array("f")
        counts = found[name + COUNTS][1]
        for row, count in enumerate(counts):
            # One count may stand for several matrices.
            width = columns * (len(sums) // columns // len(counts))
            part = sums[row * width : (row + 1) * width]
            mean.extend(value / count if count else 1.0 for value in part)
        means[name] = mean
    return means


if __name__ == "__main__":
    collect(*map(Path, sys.argv[1:5]), threads=int(sys.argv[5]))
