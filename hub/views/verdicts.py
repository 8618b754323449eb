"""Whether plugins can convert a commit: each is asked once, in the background, and remembered.

Asking starts a process in the plugin's environment. A page waits a moment for the answers and is
shown without those that are late; they are there when it is looked at again.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from threading import Lock
from typing import Any

from hub import asking
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format

log = logging.getLogger(__name__)

PATIENCE = 1.5
"""Seconds a page waits for all answers together."""
KEPT = 1024
"""Answers that are remembered."""

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Verdict:
    """`reason` says why not; without one the plugin can, as soon as it was `asked`."""

    asked: bool
    reason: str | None = None


class Verdicts:
    """The answers of one process. Thread-safe."""

    def __init__(self, workers: int = 2) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="supports")
        self._answers: OrderedDict[Key, Future[str | None]] = OrderedDict()
        self._lock = Lock()

    def about(
        self,
        settings: Settings,
        plugins: list[Format],
        commit: str,
        config: Mapping[str, Any],
        files: list[str],
    ) -> dict[str, Verdict]:
        """What each plugin says about a commit, by its name; waits for PATIENCE at most."""
        asked = {fmt.name: self._ask(settings, fmt, commit, config, files) for fmt in plugins}
        end = time.monotonic() + PATIENCE
        return {name: _verdict(future, end - time.monotonic()) for name, future in asked.items()}

    def _ask(
        self,
        settings: Settings,
        fmt: Format,
        commit: str,
        config: Mapping[str, Any],
        files: list[str],
    ) -> Future[str | None]:
        key = (str(settings.data), commit, fmt.name, fmt.lock_digest, _changed(fmt))
        with self._lock:
            known = self._answers.get(key)
            # A failure is no answer: the next visitor makes the hub ask again.
            if known is not None and not (known.done() and known.exception()):
                self._answers.move_to_end(key)
                return known
            future = self._pool.submit(asking.supports, settings, fmt, config, files)
            self._answers[key] = future
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
            return future


def _verdict(future: Future[str | None], wait: float) -> Verdict:
    try:
        return Verdict(asked=True, reason=future.result(timeout=max(0.0, wait)))
    except Late:
        return Verdict(asked=False)
    except HubError as error:
        return Verdict(asked=True, reason=f"{error.message} {error.hint}".strip())


def _changed(fmt: Format) -> int:
    """When the newest file of the plugin was changed, in ns: an edited one is asked anew."""
    return max((file.stat().st_mtime_ns for file in fmt.folder.glob("*.*")), default=0)


verdicts = Verdicts()
