"""What an artefact says next, held against what its source says: on the hub's side.

The scripts of this folder run in the environments of the plugins and leave their choices in files.
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SCRIPTS = {
    "gguf": "gguf.py",
    "onnx": "onnx.py",
    "onnx-genai": "onnx_genai.py",
    "openvino": "openvino.py",
    "mlx": "mlx.py",
}
COUNT = 32
"""Tokens that are compared after each prompt."""
VOCABULARY = 2048
SPECIAL = 259
TOLERANCE = {"full": 0.02, "half": 0.25}
"""How far a logit may be off where the choices differ, in standard deviations of all of them."""
SECONDS = 600


def prompts() -> list[list[int]]:
    """Two: a short one, and one that is longer than the sliding windows of the zoo."""
    raw = np.random.PCG64(7).random_raw(639)
    long = [1, *(int(SPECIAL + number % (VOCABULARY - SPECIAL)) for number in raw)]
    return [[1, 400, 1200, 777, 1500, 301, 999, 640, 1801, 520, 333, 1010], long]


@dataclass(frozen=True)
class Said:
    """Choices (prompts x count), and logits (prompts x count x vocabulary)."""

    tokens: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How many of `count` choices agree after each prompt, and how far any logit is off."""

    tokens: list[int]
    count: int
    deviation: float
    tolerance: float

    @property
    def whole(self) -> bool:
        """Every choice is the source's."""
        return all(number == self.count for number in self.tokens)

    @property
    def holds(self) -> bool:
        """Every choice is the source's, or the logits are within the tolerance."""
        return self.whole or self.deviation <= self.tolerance

    def __str__(self) -> str:
        agreed = " and ".join(f"{number} of {self.count}" for number in self.tokens)
        return f"{agreed} tokens agree, logits within {self.deviation:.3f} standard deviations"


class Failed(Exception):
    """A script that did not run to its end: its last words."""


def reference(python: Path, source: Path) -> Said:
    """What the source says, by transformers in float32."""
    return _say(python, "reference.py", source, None)


def agreement(python: Path, plugin: str, artefact: Path, source: Said, kind: str) -> Agreement:
    """Hold an artefact of a precision class against what its source says. Failed if it fails."""
    said = _say(python, SCRIPTS[plugin], artefact, source.tokens.tolist())
    # Padding is nobody's choice, and some runtimes leave it out.
    theirs, ours = said.logits[..., :VOCABULARY], source.logits[..., :VOCABULARY]
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        raise Failed(f"its logits are no numbers, or not of {ours.shape}: {theirs.shape}")
    deviation = np.abs(theirs - ours).max(-1) / ours.std(-1)
    return Agreement(
        [int(number) for number in (said.tokens == source.tokens).sum(1)],
        source.tokens.shape[1],
        float(deviation.max()),
        TOLERANCE[kind],
    )


def _say(python: Path, script: str, model: Path, paths: list[list[int]] | None) -> Said:
    asked = prompts()
    with tempfile.TemporaryDirectory() as name:
        request, result = Path(name, "request.json"), Path(name, "result.npz")
        what = {"prompts": asked, "paths": paths or len(asked) * (None,), "count": COUNT}
        request.write_text(json.dumps(what), "utf-8")
        command = [str(python), "-I", "-W", "ignore", str(HERE / script)]
        try:
            done = subprocess.run(
                [*command, str(model), str(request), str(result)],
                env={"PATH": "/usr/bin:/bin", "HOME": name, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"it did not end within {SECONDS} s") from None
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
            raise Failed(last[0][:300])
        with np.load(result) as arrays:
            return Said(arrays["tokens"], arrays["logits"])
