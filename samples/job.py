"""A job outside the hub, for the plugins' own tests: the real one, which keeps what it is told."""

import importlib.util
from pathlib import Path
from typing import Any

SHIM = Path(__file__).parents[1] / "workers" / "shim.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("shim", SHIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_shim = _load()
Failure = _shim.Refusal
"""What job.fail raises, with `kind`, `message` and `hint`; as in the hub, not an Exception."""


class Job(_shim.Job):
    """A job with its scratch folder, which is made if it is not there."""

    def __init__(self, scratch: Path, variant: str = "", threads: int = 2) -> None:
        request = {
            "scratch": scratch,
            "earlier": scratch / "earlier",
            "source_name": "acme_tiny",
            "threads": threads,
            "memory": 4 << 30,
            "options": {},
        }
        super().__init__(request, None, variant)
        self.earlier.mkdir(parents=True, exist_ok=True)
        self.reports: list[tuple[float, str]] = []
        self.ran: list[str] = []

    def report(self, done: float, message: str = "") -> None:
        """Keep every report, as it was made."""
        self.reports.append((done, message))

    def run(self, command: list[str], **rest: Any) -> list[str]:
        """Keep the command, as a line, and run it."""
        self.ran.append(" ".join(command))
        return super().run(command, **rest)
