"""How gunicorn serves the hub: `gunicorn --config python:hub.gunicorn 'hub.app:create_app()'`.

Threads, because a download is one sendfile call that a thread waits for: a hundred slow clients
cost a hundred waiting threads, and no processor. The number of processes is gunicorn's own
WEB_CONCURRENCY.
"""

import socket
from typing import Any

from hub.config import Settings
from hub.security import check_settings

_settings = Settings()
check_settings(_settings)

_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host
bind = [f"{_host}:{_settings.port}"]
worker_class = "gthread"
threads = 128
keepalive = 15
timeout = 60
graceful_timeout = 5
# sendfile is on by default, and gunicorn reads any value of its setting as a wish to have it off.
accesslog = None
errorlog = "-"
# Path tricks are the application's to answer; a longer line than this is nobody's file.
limit_request_line = 8190
control_socket_disable = True

STALLED = 120
"""Seconds after which a client that takes no more bytes is cut off, so that it frees its thread."""


def when_ready(server: Any) -> None:
    """Have the kernel end stalled connections: accepted sockets inherit this from the listener."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    for listener in server.LISTENERS:
        if option is not None and listener.sock.family in (socket.AF_INET, socket.AF_INET6):
            listener.sock.setsockopt(socket.IPPROTO_TCP, option, STALLED * 1000)


def post_worker_init(worker: Any) -> None:
    """Let event streams see that the process is to stop, so that they end instead of being cut."""
    worker.wsgi.extensions["alive"] = lambda: worker.alive
