"""Whether plugins can convert a commit, and at what cost: each is asked once, in the background.

Asking starts a process in the plugin's environment. A page waits a moment for the answers and is
shown without those that are late; they are there when it is looked at again.
"""

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from functools import cache
from threading import Lock

from hub import asking, outline
from hub.asking import Appraisal, Estimate
from hub.config import Settings
from hub.errors import HubError
from hub.formats import Format
from hub.manifest import Value
from hub.models import Commit, File
from hub.outline import Outline

log = logging.getLogger(__name__)

PATIENCE = 1.5
"""Seconds a page waits for all answers together."""
KEPT = 1024
"""Answers that are remembered."""

Key = tuple[str, str, str, str, int, str]


@dataclass(frozen=True)
class Verdict:
    """`reason` says why not; without one the plugin can, as soon as it was `asked`.

    The estimates are of all variants with default options.
    """

    asked: bool
    reason: str | None = None
    estimates: Mapping[str, Estimate] = field(default_factory=dict)


class Verdicts:
    """The answers of one process. Thread-safe."""

    def __init__(self, workers: int = 2) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="appraise")
        self._answers: OrderedDict[Key, Future[Appraisal]] = OrderedDict()
        self._lock = Lock()

    def about(
        self,
        settings: Settings,
        plugins: list[Format],
        commit: Commit,
        files: Sequence[File],
    ) -> dict[str, Verdict]:
        """What each plugin says about a commit, by its name; waits for PATIENCE at most."""
        reading = Lock()

        @cache
        def read() -> Outline:
            return outline.of_commit(settings, commit, files)

        def model() -> Outline:
            with reading:  # those who ask at the same time share what one of them reads
                return read()

        asked = {
            fmt.name: self.ask(settings, fmt, commit.sha, model, fmt.validate_options({}))
            for fmt in plugins
        }
        end = time.monotonic() + PATIENCE
        return {name: _verdict(future, end - time.monotonic()) for name, future in asked.items()}

    def ask(
        self,
        settings: Settings,
        fmt: Format,
        sha: str,
        model: Callable[[], Outline],
        options: Mapping[str, Value],
    ) -> Future[Appraisal]:
        """The answer, now or later, about all variants of a plugin; the same question is one."""
        key = (
            str(settings.data),
            sha,
            fmt.name,
            fmt.lock_digest,
            _changed(fmt),
            json.dumps(options, sort_keys=True),
        )
        with self._lock:
            known = self._answers.get(key)
            # A failure is no answer: the next visitor makes the hub ask again.
            if known is not None and not (known.done() and known.exception()):
                self._answers.move_to_end(key)
                return known
            future = self._pool.submit(_appraise, settings, fmt, model, options)
            self._answers[key] = future
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
            return future


def _appraise(
    settings: Settings, fmt: Format, model: Callable[[], Outline], options: Mapping[str, Value]
) -> Appraisal:
    variants = [variant.name for variant in fmt.variants]
    return asking.appraise(settings, fmt, model(), variants, options)


def _verdict(future: Future[Appraisal], wait: float) -> Verdict:
    try:
        said = future.result(timeout=max(0.0, wait))
        return Verdict(True, said.reason, said.estimates)
    except Late:
        return Verdict(asked=False)
    except HubError as error:
        return Verdict(asked=True, reason=f"{error.message} {error.hint}".strip())


def _changed(fmt: Format) -> int:
    """When the newest file of the plugin was changed, in ns: an edited one is asked anew."""
    return max((file.stat().st_mtime_ns for file in fmt.folder.glob("*.*")), default=0)


verdicts = Verdicts()
