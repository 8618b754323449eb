"""The doorbell: messages through Redis that say "look at job 7", and nothing else.

Everything that matters is in the database. A message may be lost, doubled or late; the reconciler
(workers/reconciler.py) rings again for what was not heard.
"""

import os
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

TASK = "hub.run"
QUEUE = "slmhub"
# The two together stay below the 300 ms that accepting a job may take while Redis is away.
CONNECT_TIMEOUT = 0.1
ANSWER_TIMEOUT = 0.1

__all__ = ["QUEUE", "TASK", "OperationalError", "broker_url", "celery", "ring", "waiting"]


def broker_url(redis: str) -> str:
    """A Redis URL as kombu spells it: unix:///path?db=1 is redis+socket:///path?virtual_host=1."""
    parts = urlsplit(redis)
    if parts.scheme != "unix":
        return redis
    query = {{"db": "virtual_host"}.get(key, key): value for key, value in parse_qsl(parts.query)}
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{login}{parts.path}" + (f"?{urlencode(query)}" if query else "")


def celery(redis: str, **transport: Any) -> Celery:
    """A Celery application on this Redis, with the settings that client and worker share."""
    app = Celery("slmhub", broker=broker_url(redis), set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        broker_pool_acquire_timeout=10,
        broker_transport_options={
            "socket_keepalive": True,
            # A connection that died without a word is noticed within twice this, and a second.
            "health_check_interval": 5,
            **transport,
        },
    )
    return app


@lru_cache(maxsize=8)
def _client(redis: str, _process: int) -> Celery:
    # A connection does not survive a fork, hence one client a process. Celery would try for 2 s
    # more after a refused connection: here the reconciler is what tries again.
    app = celery(
        redis,
        socket_timeout=ANSWER_TIMEOUT,
        socket_connect_timeout=CONNECT_TIMEOUT,
        max_retries=1,
        interval_start=0,
        interval_step=0,
        interval_max=0,
    )
    app.conf.broker_pool_acquire_timeout = CONNECT_TIMEOUT
    return app


def ring(redis: str, job_id: int) -> None:
    """Tell some worker to look at a job; raises kombu's OperationalError within 0.3 s."""
    _client(redis, os.getpid()).send_task(TASK, args=[job_id], ignore_result=True, retry=False)


def waiting(redis: str) -> int:
    """How many messages nobody has taken yet; raises kombu's OperationalError within 0.3 s."""
    with _client(redis, os.getpid()).connection_for_write() as connection:
        try:
            channel = connection.default_channel
            return int(channel.queue_declare(QUEUE).message_count)
        except connection.recoverable_connection_errors as error:
            raise OperationalError(str(error)) from error
