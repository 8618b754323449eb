"""A runtime's greedy choices along a path of tokens: what every script here shares.

A script is run by the python of the environment that holds its runtime:
    PYTHON -I bench/greedy/NAME.py ARTEFACT REQUEST RESULT
REQUEST is JSON: `prompts`, lists of token ids; `paths`, for each prompt the tokens that follow it,
or null where the script's own choices are the path; `count`, how many choices are wanted.
RESULT is an .npz: `tokens` (prompts x count), what the runtime would say next at every step of the
path, and `logits` (prompts x count x vocabulary). While the choices are those of the path, they
are what greedy generation gives; after another choice the path is followed on, so that one
near tie does not end the comparison.

Standard library and numpy. The folder has modules named like the packages that they import, and so
is on the import path of a script (-I) only while it imports this one.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np


class Sequence(Protocol):
    """A sequence of tokens that a model computes on, with its cache."""

    def feed(self, tokens: list[int]) -> np.ndarray:
        """Append tokens; return the logits after the last of them."""
        ...


def follow(begin: Callable[[], Sequence], request: dict) -> tuple[np.ndarray, np.ndarray]:
    """The choices and the logits at every step of every path."""
    tokens, logits = [], []
    for prompt, path in zip(request["prompts"], request["paths"], strict=True):
        sequence, fed = begin(), prompt
        chosen: list[int] = []
        seen = []
        for step in range(request["count"]):
            seen.append(np.asarray(sequence.feed(fed), np.float32).reshape(-1))
            chosen.append(int(seen[-1].argmax()))
            fed = [chosen[-1] if path is None else path[step]]
        tokens.append(chosen)
        logits.append(seen)
    return np.array(tokens), np.array(logits)


def main(load: Callable[[Path, int], Callable[[], Sequence]]) -> None:
    """Run a script: `load` opens an artefact for sequences of so many tokens at the most."""
    artefact, asked, result = map(Path, sys.argv[1:])
    request = json.loads(asked.read_text("utf-8"))
    longest = max(map(len, request["prompts"])) + request["count"]
    tokens, logits = follow(load(artefact, longest), request)
    np.savez(result, tokens=tokens, logits=logits)
