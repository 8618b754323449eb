"""The log of a job: one file, whatever the converter prints, never larger than its limit.

The beginning and the end are kept, because the first says what was tried and the last what went
wrong. Secrets of the hub's settings are blotted out before a byte is written.
"""

import errno
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from hub.config import Settings
from hub.jobs import log_path

LIMIT = 10 * 1024**2
HEAD = 1024**2
TAIL = 4 * 1024**2
LINE = 64 * 1024
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{20,}")
_GAP = re.compile(rb"\n\[(\d+) bytes left out\]\n")


def secrets(settings: Settings) -> list[bytes]:
    """The texts that must not be in any log, longest first."""
    found = [settings.hf_token or "", settings.admin_token.get_secret_value()]
    found += [urlsplit(url).password or "" for url in (settings.database_url, settings.redis_url)]
    return sorted((text.encode() for text in found if len(text) >= 4), key=len, reverse=True)


class JobLog:
    """Appends to the log file of a job; any thread may write."""

    def __init__(self, settings: Settings, job_id: int) -> None:
        self.path = log_path(settings, job_id)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._secrets = secrets(settings)
        self._lock = threading.Lock()
        self._line = b""
        self._file = self.path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def say(self, text: str) -> None:
        """Write a line of the hub's own."""
        self.write(f"[hub] {text}\n".encode())

    def write(self, data: bytes) -> int:
        """Take bytes; whole lines reach the file, so that no secret is cut in two."""
        with self._lock:
            lines, end, rest = (self._line + data).rpartition(b"\n")
            self._line = rest
            self._put(lines + end)
            if len(self._line) > LINE:
                self._put(self._line)
                self._line = b""
        return len(data)

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""

    def close(self) -> None:
        """Write the unfinished line and close the file."""
        with self._lock:
            if not self._file.closed:
                self._put(self._line)
                self._line = b""
                self._file.close()

    def _put(self, data: bytes) -> None:
        if not data:
            return
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        try:
            self._file.write(_TOKEN.sub(b"hf_***", data))
            if self._file.tell() > LIMIT:
                self._shorten()
        except OSError as error:
            # A full disk is told by the job's own failure: writing that down must not fail as well.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def _shorten(self) -> None:
        """Leave out the middle; the shorter file takes the place of the longer as a whole."""
        whole = self.path.read_bytes()
        head, gap, rest = whole[:HEAD], 0, whole[HEAD:]
        if earlier := _GAP.match(rest):
            gap, rest = int(earlier[1]), rest[earlier.end() :]
        dropped = len(rest) - TAIL
        short = self.path.with_suffix(".short")
        short.write_bytes(head + b"\n[%d bytes left out]\n" % (gap + dropped) + rest[dropped:])
        short.replace(self.path)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)


def tail(settings: Settings, job_id: int, size: int = 16 * 1024) -> str:
    """The last `size` bytes of a job's log, from a whole line on; empty where there is none."""
    try:
        with log_path(settings, job_id).open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - size - 1))
            data = file.read(size + 1)
    except FileNotFoundError:
        return ""
    if length > size:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")


def read(path: Path, start: int = 0) -> str:
    """A log from a byte position on; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
