"""Holding a job: a thread that tells the database the job is alive, and learns what it wants."""

import logging
import threading
import time
from enum import Enum
from types import TracebackType
from typing import Self

from hub import leases
from hub.config import Settings
from hub.leases import Beat, Claim, LostLease

log = logging.getLogger(__name__)

TICK = 1.0
STOP_TICK = 0.2


class Cancelled(Exception):
    """The work was ended before it was done; `Holding.reason` says why."""


class Reason(Enum):
    """Why the work on a job has to end."""

    CANCEL = "someone cancelled it"
    LOST = "it was taken back: this worker had not been heard of for too long"
    STOP = "this worker stops"


class Holding:
    """Keeps the lease of a claim alive inside a `with` block, and hands progress on.

    Every tick (1 s) it looks whether the job is still ours and wanted; it writes when there is
    progress to show, and at least every `settings.heartbeat` seconds. While the database is away it
    keeps trying: as long as nobody took the job back, it is ours.
    """

    def __init__(self, settings: Settings, claim: Claim) -> None:
        self.settings = settings
        self.claim = claim
        self.reason: Reason | None = None
        self._progress = 0.0
        self._message = ""
        self._changed = False
        self._written = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"job {claim.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join(timeout=self.settings.heartbeat)

    def report(self, progress: float, message: str) -> None:
        """Note how far the work is (0 to 1); the next tick writes it down."""
        self._progress, self._message, self._changed = progress, message, True

    def ended(self) -> bool:
        """Whether the work has to end now; `reason` then says why."""
        return self.reason is not None

    def check(self) -> None:
        """Raise Cancelled when the work has to end."""
        if self.ended():
            raise Cancelled

    def _beat(self) -> None:
        tick = min(TICK, self.settings.heartbeat / 2)
        looked = time.monotonic()
        while not self._end.wait(min(tick, STOP_TICK)) and self.reason is None:
            try:
                if _stopping:
                    self._give_back()
                elif time.monotonic() - looked >= tick:
                    looked = time.monotonic()
                    self._learn(self._sign_of_life())
            except leases.AWAY as error:
                log.warning("job %d: the database is away (%s)", self.claim.id, error.orig)

    def _give_back(self) -> None:
        """Queue the job again before its work has ended: the time that takes may not be left."""
        self.reason = Reason.STOP
        try:
            leases.release(self.settings, self.claim)
        except LostLease:
            self.reason = Reason.LOST

    def _learn(self, beat: Beat) -> None:
        if beat is Beat.LOST and not self._end.is_set():
            self.reason = Reason.LOST
        elif beat is Beat.CANCEL:
            self.reason = Reason.CANCEL

    def _sign_of_life(self) -> Beat:
        due = time.monotonic() - self._written >= self.settings.heartbeat
        if not (self._changed or due):
            return leases.look(self.settings, self.claim)
        self._changed = False
        beat = leases.heartbeat(self.settings, self.claim, self._progress, self._message)
        self._written = time.monotonic()
        return beat


_stopping = False


def stop() -> None:
    """Ask every holding of this process to end; safe inside a signal handler."""
    global _stopping
    _stopping = True
