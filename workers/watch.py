"""Watching a converter: its memory, processes, bytes on disk and time, from outside."""

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from hub import launch
from hub.config import Settings
from hub.errors import HubError
from hub.launch import Request, end, tree

LOOK = 0.25  # seconds between two looks at memory and processes
DISK_LOOK = 1.0
GRACE = 10.0  # seconds between TERM and KILL
DISK_FLOOR = 256 << 20  # bytes that must stay free for everybody else
MiB = 1 << 20


class PluginError(HubError):
    """A conversion failed; `kind` is the plugin's own or one of those in docs/protocol.md."""

    status = 422
    title = "Conversion failed"


class Cancelled(Exception):
    """The run was ended because it is no longer wanted."""


class Watch:
    """Looks at a launched process until `stop`; ends it when a limit is crossed.

    `verdict` then says why. `peak` is the most memory that was seen, in bytes, without what is
    shared or can be let go of; `scratch` the most that lay in the scratch folder.
    """

    def __init__(
        self,
        settings: Settings,
        process: psutil.Popen,
        request: Request,
        level: str,
        wanted: Callable[[], bool],
    ) -> None:
        self.verdict: Exception | None = None
        self.peak = 0
        self.scratch = 0
        self.heard = time.monotonic()
        self._settings = settings
        self._process = process
        self._folders = [path for path in (request.output, request.scratch) if path is not None]
        self._scratch = request.scratch
        self._own = 2 if level == "strict" else 1  # the launcher, and process 1
        self._wanted = wanted
        self._limit = launch.memory(settings)
        self._began = time.monotonic()
        self._disk_looked = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and see to it that nothing of the converter is left."""
        self._over.set()
        self._thread.join()
        self.weigh_scratch()
        end(self._process, grace=0)

    def weigh_scratch(self) -> int:
        """The bytes in the scratch folder now."""
        there = _bytes_in(self._scratch) if self._scratch is not None else 0
        self.scratch = max(self.scratch, there)
        return there

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            try:
                self._look()
            except (PluginError, Cancelled) as verdict:
                self.verdict = verdict
                # A hog is not asked: it would grow meanwhile.
                polite = isinstance(verdict, Cancelled) or verdict.kind in (
                    "timeout",
                    "plugin_silent",
                )
                end(self._process, grace=GRACE if polite else 0)
                return
            except psutil.NoSuchProcess:
                continue

    def _look(self) -> None:
        if not self._wanted():
            raise Cancelled
        now = time.monotonic()
        if now - self._began > self._settings.job_timeout:
            raise PluginError(
                "timeout",
                f"The conversion took longer than the {self._settings.job_timeout} s allowed.",
                "Ask for fewer variants at once; an operator can raise HUB_JOB_TIMEOUT.",
            )
        if now - self.heard > self._settings.idle_timeout:
            raise PluginError(
                "plugin_silent",
                f"The converter said nothing for {self._settings.idle_timeout} s.",
                "It may hang; an operator can raise HUB_IDLE_TIMEOUT.",
            )
        processes = tree(self._process)
        self._count(processes)
        self._weigh(processes)
        if now - self._disk_looked >= DISK_LOOK:
            self._disk_looked = now
            self._measure(processes)

    def _count(self, processes: list[psutil.Process]) -> None:
        tasks = sum(_threads(process) for process in processes) - self._own
        if tasks >= self._settings.process_limit:
            raise PluginError(
                "too_many_processes",
                f"The converter ran {tasks} processes and threads, and"
                f" {self._settings.process_limit} are allowed.",
                "An operator can raise HUB_PROCESS_LIMIT.",
            )

    def _weigh(self, processes: list[psutil.Process]) -> None:
        files = _memory_files(processes)
        if sum(_touched(process.pid) for process in processes) + files <= self.peak:
            return  # an upper bound, which costs nothing: processes may share some of it
        used = sum(own_memory(process.pid) for process in processes) + files
        self.peak = max(self.peak, used)
        if used > self._limit:
            raise PluginError(
                "out_of_memory",
                f"The conversion used {used // MiB:,} MiB of memory, and"
                f" {self._limit // MiB:,} MiB are allowed.",
                "Convert on a machine with more memory; an operator can raise HUB_MEMORY_LIMIT.",
            )

    def _measure(self, processes: list[psutil.Process]) -> None:
        written = self.weigh_scratch()
        written += sum(_bytes_in(folder) for folder in self._folders if folder != self._scratch)
        written += _deleted_bytes(processes, {folder.stat().st_dev for folder in self._folders})
        if written > self._settings.output_limit:
            raise PluginError(
                "output_too_large",
                f"The converter wrote {written:,} bytes, and"
                f" {self._settings.output_limit:,} are allowed.",
                "An operator can raise HUB_OUTPUT_LIMIT.",
            )
        free = min((shutil.disk_usage(folder).free for folder in self._folders), default=1 << 62)
        if free < DISK_FLOOR:
            raise PluginError(
                "disk_full",
                f"The disk has {free // MiB} MiB left, and {DISK_FLOOR // MiB} MiB must stay free.",
                "Free some space (`slmhub gc` removes what nothing needs), then request it again.",
            )


def _threads(process: psutil.Process) -> int:
    try:
        return process.num_threads()
    except psutil.Error:
        return 0


def own_memory(pid: int) -> int:
    """Bytes that only the end of the process frees: its share of anonymous and shared memory.

    The kernel goes through all of the process's pages for it: with gigabytes of mapped files that
    takes a while, in which the process cannot map more.
    """
    return _kilobytes(pid, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))


def _touched(pid: int) -> int:
    """The same without asking who shares it, which the kernel has at hand."""
    return _kilobytes(pid, "status", ("RssAnon:", "RssShmem:", "VmSwap:"))


def _kilobytes(pid: int, file: str, keys: tuple[str, ...]) -> int:
    """The sum of these lines of a process's file in /proc, in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text("utf-8", "replace").splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(keys))


def _memory_files(processes: list[psutil.Process]) -> int:
    """Bytes in the private /tmp and /dev/shm, which are memory too, seen through the converter."""
    for process in processes[1:]:
        root = Path(f"/proc/{process.pid}/root")
        try:
            if root.stat().st_dev == Path("/").stat().st_dev:
                return 0  # not behind walls: these are everybody's
            found = [os.statvfs(root / name) for name in ("tmp", "dev/shm")]
        except OSError:  # process 1 is closed to us, and others may be ending
            continue
        return sum((status.f_blocks - status.f_bfree) * status.f_frsize for status in found)
    return 0


def _bytes_in(folder: Path) -> int:
    """Bytes a folder takes up on disk; holes in files take none."""
    total = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:  # removed while we looked, or closed to us: the disk's floor still holds
            continue
    return total


def _deleted_bytes(processes: list[psutil.Process], devices: set[int]) -> int:
    """Bytes in files that are open but have no name any more, on the disks that are written to."""
    seen: dict[tuple[int, int], int] = {}
    for found in (status for process in processes for status in _open_files(process.pid)):
        if found.st_nlink == 0 and found.st_dev in devices and stat.S_ISREG(found.st_mode):
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def _open_files(pid: int) -> Iterator[os.stat_result]:
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for link in links:
        try:
            yield link.stat()
        except OSError:
            continue
