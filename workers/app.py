"""The Celery application of a worker, and the process `python -m workers` runs.

Messages are acknowledged before the work begins, and taken only when a slot is free: Redis is never
asked how long a job may take. What protects a job is its lease in the database (hub/leases.py).
"""

import faulthandler
import logging
import os
import signal
import socket
from typing import Any

from billiard import active_children
from celery import Celery
from celery import signals as events
from celery.worker import state

from hub import queue
from hub.config import Settings
from workers import tasks
from workers.reconciler import Reconciler
from workers.watchdog import Watchdog

log = logging.getLogger(__name__)


def make(settings: Settings) -> Celery:
    """The application, with the one task that it has."""
    worker = worker_name()
    # While the consumer waits for an answer it looks after nothing else, its own health included.
    app = queue.celery(settings.redis, socket_timeout=10, socket_connect_timeout=5)
    app.conf.update(
        worker_concurrency=settings.slots,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        task_acks_late=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Remote control answers from memory and needs a connection of its own; the database knows
        # the workers' state, and cancelling goes through it too.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # The default, 4 s, is too short for a machine that a conversion keeps busy.
        worker_proc_alive_timeout=60,
    )

    def run(job_id: int) -> None:
        # Otherwise a slot dies of TERM at once; a running job is to be given back first. Set here,
        # because Celery's pool sets its own handler after every hook that it offers.
        before = signal.signal(signal.SIGTERM, tasks.stop)
        try:
            tasks.run(settings, job_id, worker)
        finally:
            signal.signal(signal.SIGTERM, before)

    app.task(name=queue.TASK, ignore_result=True)(run)
    return app


def worker_name() -> str:
    """The worker whose parent process this is, as job rows and logs name it: pid@host."""
    return f"{os.getpid()}@{socket.gethostname()}"


def main(settings: Settings) -> int:
    """Run a worker until a signal ends it; its exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # `kill -USR2` on a worker or a slot writes what each of its threads is doing into the log. A
    # handler in C: it answers where Python waits for a lock for ever.
    faulthandler.register(signal.SIGUSR2)
    app = make(settings)
    watchdog = Watchdog(settings, worker_name(), lambda: state.all_total_count[0])
    reconciler = Reconciler(settings, watchdog)

    def _ready(**_: Any) -> None:
        reconciler.start()

    def _stopping(**_: Any) -> None:
        reconciler.stop()
        for child in active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    events.worker_ready.connect(_ready, weak=False)
    events.worker_shutting_down.connect(_stopping, weak=False)
    worker = app.Worker(
        hostname=worker_name(),
        pool_cls="prefork",
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    reconciler.stop()
    return int(worker.exitcode or watchdog.stalled)
