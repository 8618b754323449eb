"""The reconciler: what makes Redis a doorbell that may break, and a worker something that may die.

Each worker runs one in a thread; any number of them agree, because the database decides. Every
second it rings for jobs for which nobody did yet (Redis was away, or the process that accepted them
died). Every `settings.reconcile` seconds it takes back the jobs of lost workers, rings again for
those that were not heard, removes what lost workers left on the disk, and asks the watchdog.
"""

import logging
import os
import threading
import time

from hub import db, jobs, leases, queue, scratch
from hub.config import Settings
from workers.watchdog import Watchdog

log = logging.getLogger(__name__)

RELAY = 1.0


class Reconciler:
    """Looks after lost messages and lost workers, in a thread of its own."""

    def __init__(self, settings: Settings, watchdog: Watchdog | None = None) -> None:
        self.settings = settings
        self._watchdog = watchdog
        self._between_ticks = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._stopped = False
        self._next_look = 0.0
        self._patience_until = 0.0

    def start(self) -> None:
        """Start the thread; a second call is nothing."""
        if self._thread.ident is not None:
            return
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._between_ticks.release,
            after_in_child=self._between_ticks.release,
        )
        self._thread.start()

    def _before_fork(self) -> None:
        """Leave nothing of the database for a child to inherit.

        A slot that died is replaced by a fork of this process. In the middle of a tick it would
        copy locks as they are, held, and wait for them for ever; and SQLite takes an inherited
        connection's file locks for the child's own, which they are not.
        """
        self._between_ticks.acquire()
        db.engine(self.settings.database).dispose()

    def stop(self) -> None:
        """Let the thread end; safe inside a signal handler, so it is not waited for."""
        self._stopped = True

    def _run(self) -> None:
        while not self._stopped:
            with self._between_ticks:
                self.tick()
            if self._watchdog and self._watchdog.stalled and not self._stopped:
                self._watchdog.end()
            time.sleep(min(RELAY, self.settings.reconcile))

    def tick(self) -> None:
        """Do what is due now. Never raises: the next tick is the second try."""
        try:
            self._ring(leases.unsent(self.settings))
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + self.settings.reconcile
                self.look()
        except leases.AWAY as error:
            log.warning("the database is away: %s", error.orig)
            # Nobody could tell that they are alive either: they get time for it before anything is
            # taken from them.
            self._patience_until = time.monotonic() + 2 * self.settings.heartbeat
        except queue.OperationalError as error:
            log.warning("Redis is away: %s", error)
        except Exception:  # the edge of this thread: it must outlive every surprise
            log.exception("the reconciler failed")

    def look(self) -> None:
        """Sweep up, take back lost jobs, ring for unheard ones, ask the watchdog."""
        if time.monotonic() >= self._patience_until:
            scratch.sweep(self.settings)
            for job_id in leases.take_back(self.settings):
                log.warning("job %d was taken back from a lost worker", job_id)
        unheard = leases.unheard(self.settings, self.settings.reconcile)
        # While the slots are busy messages wait, rightly: ringing again would only pile them up.
        if unheard and queue.waiting(self.settings.redis) < leases.queued(self.settings):
            self._ring(unheard)
        if self._watchdog:
            self._watchdog.look()

    def _ring(self, job_ids: list[int]) -> None:
        for job_id in job_ids:
            if self._stopped or not jobs.notify(self.settings, job_id):
                return
