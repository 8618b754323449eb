"""A TCP proxy in front of a Redis, whose connections a test may let die without a word."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards a port of this machine to a Unix socket."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        self.lines: list[_Line] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_silently(self) -> None:
        """Forward nothing more on the connections there are; neither side hears that they ended."""
        for line in self.lines:
            line.dead = True

    def close(self) -> None:
        self.listener.close()
        for line in self.lines:
            line.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                try:
                    far.connect(self.target)
                except OSError:
                    near.close()
                    far.close()
                    continue
                self.lines.append(_Line(near, far))


class _Line:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.dead = False
        self.ends = (near, far)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self.dead:
                    sink.sendall(data)
        if not self.dead:
            self.close()

    def close(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy for the length of a block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
