"""Which files of a repo the hub takes: one set of weights, and what is needed to use them.

Taken are safetensors, tokenizer, configuration, chat templates, card and licence. Never taken is
what runs when it is loaded or imported (pickles, unless the operator asks; *.py), nor the same
weights in another format, nor folders of other exports.
"""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from hub import safetensors
from hub.errors import Unprocessable
from hub.upstream import RemoteFile

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# At the top of the repo; case counts, except where the community writes both.
_DESCRIPTIONS = ("*.json", "*.jinja", "*.tiktoken", "*.txt", "*.model", "*.spm", "*.md")
_LEGAL = ("license*", "licence*", "notice*", "copying*", "use_policy*", "usage_policy*")
_FOLDERS = ("additional_chat_templates/*.jinja",)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# Weights in a second form or for another purpose: the first set is enough.
_OTHER_WEIGHTS = ("consolidated*", "adapter_*", "*.fp16.*", "*.bf16.*", "*.fp32.*", "training_*")
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tekken.json",),
)


def described(path: str) -> bool:
    """Whether a file is one that describes the model or its use, and so is always taken."""
    if "/" in path:
        return any(fnmatchcase(path, pattern) for pattern in _FOLDERS)
    if path.startswith("."):
        return False
    if any(fnmatchcase(path.lower(), pattern) for pattern in _LEGAL):
        return not pickle(path) and not path.lower().endswith((".py", ".pyc"))
    return any(fnmatchcase(path, pattern) for pattern in _DESCRIPTIONS) and not path.endswith(
        (".bin.index.json", ".safetensors.index.json", ".ckpt.index.json")
    )


def pickle(path: str) -> bool:
    """Whether a file is in a format that runs code when it is loaded."""
    return any(fnmatchcase(path.lower(), pattern) for pattern in _PICKLES)


def candidate(path: str, allow_pickle: bool) -> bool:
    """Whether a file may be taken at all, whatever else the repo has."""
    top = "/" not in path
    return described(path) or (
        top
        and (
            path.endswith((".safetensors", ".safetensors.index.json"))
            or (allow_pickle and (pickle(path) or path.endswith(".bin.index.json")))
        )
    )


def choose(
    repo: str, files: Iterable[RemoteFile], read: Callable[[str], bytes], allow_pickle: bool
) -> list[RemoteFile]:
    """The files to take, by path. `read` gives a file's content, for the index of the weights.

    Raises Unprocessable, which names what is missing, when they would not make a usable model.
    """
    known = {file.path: file for file in files}
    taken = {path for path in known if described(path)}
    weights = _weights(set(known), read)
    if allow_pickle:
        taken |= {path for path in known if candidate(path, True) and not _safetensors(path)}
    elif not weights:
        raise _no_weights(repo, set(known))
    if not weights and not any(pickle(path) for path in taken):
        raise _no_weights(repo, set(known))
    if "config.json" not in known:
        raise Unprocessable(
            "no_config",
            f"{repo} has no config.json, so nothing can tell how to run it",
            "Choose the repo of the model in its Hugging Face form",
        )
    if not tokenizer(known):
        raise Unprocessable(
            "no_tokenizer",
            f"{repo} has no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json "
            "with merges.txt",
            "Ask its owner to add one, or choose a repo that has it",
        )
    return [known[path] for path in sorted(taken | weights)]


def tokenizer(paths: Iterable[str]) -> bool:
    """Whether these files hold a tokenizer."""
    have = set(paths)
    return any(have.issuperset(names) for names in _TOKENIZERS) or any(
        path.endswith(".tiktoken") and "/" not in path for path in have
    )


def _safetensors(path: str) -> bool:
    return path.endswith((".safetensors", ".safetensors.index.json"))


def _weights(paths: set[str], read: Callable[[str], bytes]) -> set[str]:
    """One set of safetensors: the single file, else what the index names, else all there are."""
    # The order in which transformers looks for them.
    if SINGLE in paths:
        return {SINGLE}
    if INDEX in paths:
        return {INDEX, *safetensors.shards(read(INDEX), paths, INDEX)}
    return {
        path
        for path in paths
        if path.endswith(".safetensors")
        and "/" not in path
        and not any(fnmatchcase(path, pattern) for pattern in _OTHER_WEIGHTS)
    }


def _no_weights(repo: str, paths: set[str]) -> Unprocessable:
    if "adapter_model.safetensors" in paths:
        return Unprocessable(
            "adapter_only",
            f"{repo} has an adapter (adapter_model.safetensors), but no model.safetensors",
            "Mirror the base model, or a repo with the adapter merged into it",
        )
    pickles = sorted(path for path in paths if pickle(path))
    if pickles:
        return Unprocessable(
            "pickles_only",
            f"{repo} has no model.safetensors, its weights are pickles ({', '.join(pickles[:3])})",
            "Loading pickles runs code: look for a safetensors version of it, or of its revision "
            "refs/convert/safetensors; the operator can allow pickles with HUB_ALLOW_PICKLE",
        )
    return Unprocessable(
        "no_safetensors",
        f"{repo} has no model.safetensors, and no shards of one",
        "Choose the repo of the original model: conversions such as GGUF are not a source",
    )
