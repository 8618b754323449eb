"""Train the sample model: a tiny Llama that has read Python's standard library.

The corpus is the standard library of the interpreter that runs this script, so nothing is
downloaded. One run trains a SentencePiece tokenizer and a four-layer Llama on the CPU, measures the
perplexity on files that were held out, and writes the folder that a Hugging Face repository holds.

    python samples/train.py            # the committed model: under 20 minutes on two cores
    python samples/train.py --minutes 1 --output try
    python samples/train.py --evaluate samples/slmhub/stdlib-llama-3m
"""

import argparse
import io
import itertools
import json
import math
import platform
import random
import shutil
import string
import sysconfig
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "slmhub" / "stdlib-llama-3m"
SEED = 20
VOCABULARY = 2048
CONTEXT = 512
HELD_OUT = 0.05
PROMPT = "import os\n\n\ndef walk("
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

# Tests, bundled wheels and generated tables teach nothing. _sysconfigdata and config-* hold paths
# of the machine that built the interpreter: a model must not learn them.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "encodings"}
SKIPPED_FOLDERS |= {"site-packages", "dist-packages", "ensurepip", "pydoc_data"}
SKIPPED_PREFIXES = ("_sysconfigdata", "config-")


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text: nats spent on `tokens` tokens that spell `size` bytes."""

    nats: float
    tokens: int
    size: int
    vocabulary: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.size


def split(seed: int) -> tuple[list[str], list[str]]:
    """Return the texts of the standard library's modules: those to train on, those held out."""
    root = Path(sysconfig.get_path("stdlib"))
    texts = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if SKIPPED_FOLDERS.isdisjoint(parts) and not parts[0].startswith(SKIPPED_PREFIXES):
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    random.Random(seed).shuffle(texts)  # noqa: S311 - a split, not a secret
    held_out = round(len(texts) * HELD_OUT)
    return texts[held_out:], texts[:held_out]


def train_tokenizer(texts: Iterable[str], folder: Path) -> None:
    """Write `tokenizer.model`, a SentencePiece BPE, and the `tokenizer.json` that agrees with it.

    It learns from single lines, so that a line break stays one byte token, and it keeps every
    space, because indentation matters.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines() if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        character_coverage=0.9999,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = LlamaTokenizer.from_pretrained(folder, add_prefix_space=False, add_bos_token=True)
    tokenizer.save_pretrained(folder)
    fast = folder / "tokenizer.json"
    fast.write_text(json.dumps(json.loads(fast.read_bytes()), separators=(",", ":")))
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": CONTEXT,
    }
    write_json(folder / "tokenizer_config.json", settings | SPECIAL_TOKENS)
    write_json(folder / "special_tokens_map.json", SPECIAL_TOKENS)


def encode(texts: Iterable[str], folder: Path) -> torch.Tensor:
    """Return all texts as one stream of token ids, each text between a begin and an end token."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    encoded = (tokenizer.encode(text, add_bos=True, add_eos=True) for text in texts)
    return torch.tensor(list(itertools.chain.from_iterable(encoded)))


def configuration() -> LlamaConfig:
    """Return the shape of the model: rows of 256 or 512, so that K-quants apply to all matrices."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )


def learning_rate(done: float, peak: float) -> float:
    """Warm up over the first 3 % of the run, then follow a cosine to a twentieth of the peak."""
    warm = 0.03
    if done < warm:
        return peak * max(done / warm, 0.01)
    return peak * (0.05 + 0.475 * (1 + math.cos(math.pi * (done - warm) / (1 - warm))))


def train(
    stream: torch.Tensor, steps: int, minutes: float, batch: int, peak: float
) -> tuple[LlamaForCausalLM, int]:
    """Return a model trained for `steps` steps, fewer if `minutes` end first, and the steps done.

    The learning rate follows the budget that is nearer to its end: a run that time cuts short
    still anneals. Only a run that ends by its steps can be repeated.
    """
    model = LlamaForCausalLM(configuration())
    matrices = [p for p in model.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)
    window = torch.arange(CONTEXT + 1)
    begin = time.monotonic()
    progress = tqdm(range(steps), unit="step", mininterval=5)
    for step in progress:
        done = max(step / steps, (time.monotonic() - begin) / (60 * minutes))
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, peak)
        tokens = stream[torch.randint(len(stream) - CONTEXT, (batch, 1)) + window]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=tokens[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}", budget=f"{done:.0%}", refresh=False)
    return model, progress.n


@torch.inference_mode()
def evaluate(folder: Path, texts: list[str]) -> Score:
    """Return how well the model in `folder` predicts `texts`, in windows that do not overlap."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    stream = encode(texts, folder)
    nats = 0.0
    for start in range(0, len(stream) - 1, CONTEXT):
        tokens = stream[start : start + CONTEXT + 1]
        logits = model(input_ids=tokens[None, :-1]).logits[0]
        nats += cross_entropy(logits, tokens[1:], reduction="sum").item()
    size = sum(len(text.encode()) for text in texts)
    score = Score(nats, len(stream) - 1, size, model.config.vocab_size)
    print(
        f"held-out perplexity {score.perplexity:.2f} a token (uniform: {score.vocabulary}), "
        f"{score.bits_per_byte:.3f} bits a byte, over {score.tokens} tokens of {len(texts)} files"
    )
    return score


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the weights in BF16, and the configuration with the keys that transformers 4 reads."""
    model.generation_config = GenerationConfig(
        bos_token_id=1, eos_token_id=2, do_sample=True, temperature=0.7, top_k=40
    )
    model.to(dtype=torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_bytes())
    write_json(folder / "config.json", config | {"rope_theta": 10000.0, "torch_dtype": "bfloat16"})
    for name in ("LICENSE", "chat_template.jinja"):
        shutil.copyfile(HERE / "repo" / name, folder / name)


@torch.inference_mode()
def complete(folder: Path, prompt: str) -> str:
    """Return the prompt and 120 tokens more, always the most probable that is no repetition."""
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, do_sample=False, max_new_tokens=120, repetition_penalty=1.1)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_card(folder: Path, score: Score, **figures: object) -> None:
    """Write the model card: the template with the figures of this run filled in."""
    template = string.Template((HERE / "repo" / "README.md").read_text())
    card = template.substitute(
        figures,
        perplexity=f"{score.perplexity:.2f}",
        uniform=score.vocabulary,
        bits_per_byte=f"{score.bits_per_byte:.3f}",
        held_out_tokens=f"{score.tokens:,}",
        python=platform.python_version(),
        prompt=json.dumps(PROMPT),
        sample=complete(folder, PROMPT).strip(),
    )
    (folder / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write to")
    parser.add_argument("--steps", type=int, default=2800, help="stop after so many steps")
    parser.add_argument("--minutes", type=float, default=18, help="stop after so many minutes")
    parser.add_argument("--batch", type=int, default=8, help=f"windows of {CONTEXT} tokens a step")
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=SEED, help="also chooses the held-out files")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="only measure this model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    texts, held_out = split(args.seed)
    if args.evaluate:
        evaluate(args.evaluate, held_out)
        return

    args.output.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts, args.output)
    stream = encode(texts, args.output)
    print(f"training on {len(stream)} tokens of {len(texts)} files", flush=True)
    begin = time.monotonic()
    model, steps = train(stream, args.steps, args.minutes, args.batch, args.peak)
    minutes = (time.monotonic() - begin) / 60
    save(model, args.output)
    print(f"{steps} steps took {minutes:.1f} minutes")
    write_card(
        args.output,
        evaluate(args.output, held_out),
        parameters=f"{model.num_parameters():,}",
        files=len(texts),
        held_out_files=len(held_out),
        tokens=f"{len(stream):,}",
        steps=f"{steps:,}",
        seen=f"{steps * args.batch * CONTEXT / len(stream):.1f}",
        minutes=f"{minutes:.1f}",
        batch=args.batch,
        peak=args.peak,
        seed=args.seed,
        threads=args.threads,
    )


if __name__ == "__main__":
    main()
