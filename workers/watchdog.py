"""The watchdog: a worker that has work to do, and could, but does not, had better be started anew.

What consumes messages is a library with many states; one that it cannot leave has been found in
every release so far. `slmhub up`, systemd and containers start a worker that ended again.
"""

import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable

import psutil

from hub import leases, queue
from hub.config import Settings

log = logging.getLogger(__name__)

LOOKS = 8
"""Looks without a start, settings.reconcile apart: two minutes. Looks, not seconds, because a
machine that slept, or a worker that was stopped, is not to blame for the time that passed."""
GRACE = 10.0


class Watchdog:
    """Counts how often in a row a worker with free slots started none of the jobs that wait."""

    def __init__(self, settings: Settings, worker: str, started: Callable[[], int]) -> None:
        """`started` tells how many messages the slots of `worker` have begun to work on so far."""
        self.settings = settings
        self.worker = worker
        self.stalled = False
        self._count = started
        self._started = 0
        self._looks = 0

    def look(self) -> None:
        """Find out whether the worker is `stalled`. Raises what a database or Redis away raises."""
        looks, self._looks = self._looks, 0
        before, self._started = self._started, self._count()
        if self._started != before or not leases.queued(self.settings):
            return
        if leases.held(self.settings, self.worker) >= self.settings.slots:
            return
        queue.waiting(self.settings.redis)  # while Redis is away, nobody here is to blame
        self._looks = looks + 1
        self.stalled = self._looks >= LOOKS

    def end(self) -> None:
        """End this process: jobs are given back where that still works. Does not return."""
        log.critical(
            "stalled: jobs wait, slots are free, and none was started at %d looks; "
            "this worker ends, to be started anew",
            LOOKS,
        )
        faulthandler.dump_traceback()
        for slot in psutil.Process().children():
            slot.send_signal(signal.SIGUSR2)  # workers/app.py: its stacks go into the log as well
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)
