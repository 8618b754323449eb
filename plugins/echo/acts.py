"""What hostile or broken converters do, one function each: for tests of the host.

Each gets a target (a path, an address, a number), the source, the output and the job, and returns
what it got hold of, or None. Those that grow are bounded by their target.
"""

import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def nothing(_target: str, *_: Any) -> None:
    """Behave."""


def earlier(_target: str, _source: Path, _output: Path, job: Any) -> str:
    """Tell what was made of the same commit before."""
    there = sorted(path for path in job.earlier.rglob("*") if path.is_file())
    return "\n".join(f"{path.relative_to(job.earlier)}: {path.read_text()}" for path in there)


# -- reaching out


def read(target: str, *_: Any) -> str:
    """Read a file of the machine."""
    return _attempt(lambda: Path(target).read_text(errors="replace"))


def environment(target: str, *_: Any) -> str:
    """Read the own environment, and that of one process by its number.

    Never of all that can be seen: without walls these are the processes of everybody.
    """
    own = str(dict(os.environ))
    return f"{own}\n{read(f'/proc/{int(target)}/environ')}" if target else own


def process(target: str, *_: Any) -> str:
    """Read the command line of one process by its number."""
    return read(f"/proc/{int(target)}/cmdline")


def connect(target: str, *_: Any) -> str:
    """Talk to an address of the network."""
    host, port = target.rsplit(":", 1)

    def talk() -> str:
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            return connection.recv(100).decode()

    return _attempt(talk)


def datagram(target: str, *_: Any) -> str:
    """Send a packet, as a name look-up would."""
    host, port = target.rsplit(":", 1)

    def send() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            return f"sent {sender.sendto(b'canary', (host, int(port)))}"

    return _attempt(send)


def abstract(target: str, *_: Any) -> str:
    """Talk to a socket that is in no folder."""

    def talk() -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect("\0" + target)
            return connection.recv(100).decode()

    return _attempt(talk)


def unix(target: str, *_: Any) -> str:
    """Talk to a socket in a folder, as a database or a broker has one."""

    def talk() -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(target)
            return connection.recv(100).decode()

    return _attempt(talk)


def write(target: str, *_: Any) -> str:
    """Write a file outside."""
    return _attempt(lambda: f"wrote {Path(target).write_text('canary')}")


def spoil(_target: str, source: Path, *_: Any) -> str:
    """Change the model, and what the next conversion would read with it."""
    return _attempt(lambda: f"wrote {(source / 'config.json').write_text('{}')}")


def unlock(_target: str, source: Path, *_: Any) -> str:
    """Take a file of the model out of its write protection."""

    def change() -> str:
        (source / "config.json").chmod(0o666)
        return "unlocked"

    return _attempt(change)


def poison(_target: str, *_: Any) -> str:
    """Leave code where the next conversion would import it."""
    spots = (Path(sys.prefix) / "canary.pth", Path(__file__).parent / "canary.py")
    return "\n".join(_attempt(lambda spot=spot: f"wrote {spot.write_text('1')}") for spot in spots)


def kill(target: str, *_: Any) -> str:
    """Signal a process of the machine by its number."""

    def send() -> str:
        os.kill(int(target), signal.SIGUSR1)
        return "signalled"

    return _attempt(send)


def killparent(_target: str, *_: Any) -> str:
    """Signal whoever started this."""

    def send() -> str:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.2)
        return f"survived it; its parent is {os.getppid()}"

    return _attempt(send)


def trace(_target: str, *_: Any) -> str:
    """Take over the parent as a debugger would."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.ptrace(0x4206, os.getppid(), None, None)  # PTRACE_SEIZE
    return "attached" if result == 0 else f"refused: {os.strerror(ctypes.get_errno())}"


def namespaces(_target: str, *_: Any) -> str:
    """Become root of a new user namespace, where kernel bugs are reached from."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.unshare(0x10000000)
    return "unshared" if result == 0 else f"refused: {os.strerror(ctypes.get_errno())}"


def mount(_target: str, *_: Any) -> str:
    """Mount something."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
    return "mounted" if result == 0 else f"refused: {os.strerror(ctypes.get_errno())}"


def privileges(_target: str, *_: Any) -> str:
    """Tell which capabilities are held or can be gained, and under which user."""
    status = Path("/proc/self/status").read_text()
    kept = ("Cap", "NoNewPrivs", "Seccomp:", "Uid")
    return "\n".join(line for line in status.splitlines() if line.startswith(kept))


def lookaround(_target: str, *_: Any) -> str:
    """List the top of the file system, and the network's interfaces."""
    return f"{sorted(map(str, Path('/').iterdir()))} {[name for _, name in socket.if_nameindex()]}"


# -- leaving things behind


def daemon(target: str, *_: Any) -> None:
    """Leave a process of its own session, which appends to a file as long as it lives."""
    loop = "import sys, time\nwhile True: open(sys.argv[1], 'a').write('x'); time.sleep(0.05)"
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.closerange(3, 256)
            os.execv(sys.executable, [sys.executable, "-c", loop, target])  # noqa: S606
        os._exit(0)
    alive = Path(target)
    while not (alive.exists() and alive.stat().st_size):
        time.sleep(0.01)


def symlink(target: str, _source: Path, output: Path, _job: Any) -> None:
    """Hand a link for a file."""
    (output / "link.txt").symlink_to(target or "/etc/passwd")


def folderlink(target: str, _source: Path, output: Path, _job: Any) -> None:
    """Hand a link for a folder."""
    (output / "folder").symlink_to(target or "/etc")


def replaced(target: str, _source: Path, output: Path, _job: Any) -> None:
    """Hand a link for the variant's own folder."""
    output.rename(output.with_name("elsewhere"))
    output.symlink_to(target or "elsewhere")


def hardlink(target: str, _source: Path, output: Path, job: Any) -> None:
    """Hand a file that has another name."""
    first = Path(target) if target else output / f"{job.source_name}-{job.variant}.txt"
    (output / "hard.txt").hardlink_to(first)


def fifo(_target: str, _source: Path, output: Path, _job: Any) -> None:
    """Hand a pipe, at which a reader would wait for ever."""
    os.mkfifo(output / "fifo.txt")


def device(_target: str, _source: Path, output: Path, _job: Any) -> str:
    """Make a device node."""

    def make() -> str:
        os.mknod(output / "device", 0o20600, os.makedev(1, 5))
        return "made"

    return _attempt(make)


def unixsocket(_target: str, _source: Path, output: Path, _job: Any) -> None:
    """Hand a socket."""
    os.chdir(output)
    socket.socket(socket.AF_UNIX).bind("s")


def badname(target: str, _source: Path, output: Path, _job: Any) -> None:
    """Hand a file with a name that no repo may hold."""
    (output / (target or "a\\b")).write_text("x")


def nofile(_target: str, _source: Path, output: Path, job: Any) -> None:
    """Leave nothing; check() would notice, so it is switched off."""
    _uncheck()
    (output / f"{job.source_name}-{job.variant}.txt").unlink()


def nofolder(_target: str, _source: Path, output: Path, job: Any) -> None:
    """Leave not even the folder."""
    nofile("", _source, output, job)
    output.rmdir()


# -- taking too much


def fork(target: str, *_: Any) -> None:
    """Start many processes that stay."""
    for _ in range(int(target)):
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        except BlockingIOError:
            time.sleep(0.01)
    time.sleep(40)


def map_shared(target: str, *_: Any) -> None:
    """Fill shared memory of so many MiB."""
    memory = mmap.mmap(-1, int(target) << 20)
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
    time.sleep(40)


def fill_tmp(target: str, *_: Any) -> str:
    """Fill the private /tmp with so many MiB, which is memory too."""

    def fill() -> str:
        with Path("/tmp/fill").open("wb") as file:  # noqa: S108
            for _ in range(int(target)):
                file.write(b"x" * (1 << 20))
        return "filled"

    return _attempt(fill)


def deleted(target: str, _source: Path, output: Path, _job: Any) -> None:
    """Write so many MiB into a file that has no name any more."""
    with (output / "gone").open("wb") as file:
        (output / "gone").unlink()
        for _ in range(int(target)):
            file.write(b"x" * (1 << 20))
            file.flush()
        time.sleep(40)


def sparse(target: str, _source: Path, output: Path, _job: Any) -> str:
    """Make a file of so many bytes that is all hole."""

    def make() -> str:
        with (output / "sparse.bin").open("wb") as file:
            file.truncate(int(target))
        return "made"

    return _attempt(make)


def babble(target: str, *_: Any) -> None:
    """Write so many MiB to the log."""
    for _ in range(int(target)):
        os.write(2, b"x" * (1 << 20))


def rlimit(_target: str, *_: Any) -> str:
    """Raise the own limits."""

    def lift() -> str:
        for which in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
            resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return "raised"

    return _attempt(lift)


# -- ending badly


def crash(target: str, *_: Any) -> None:
    """End by a signal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), int(target or signal.SIGSEGV))
    time.sleep(1)


def leave(target: str, *_: Any) -> None:
    """End with an exit code."""
    print("about to leave", file=sys.stderr, flush=True)
    os._exit(int(target or 3))


def throw(target: str, *_: Any) -> None:
    """Raise what nobody expects."""
    raise RuntimeError(target or "nobody expects this")


def refuse(target: str, _source: Path, _output: Path, job: Any) -> None:
    """Refuse, as a plugin should."""
    try:
        job.fail("unsupported_model", target or "This cannot be converted.", "Take another.")
    except Exception as error:  # shows that a refusal is not swallowed
        raise AssertionError from error


def hang(_target: str, *_: Any) -> None:
    """Say nothing any more, and not listen either."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)


def garbage(target: str, _source: Path, _output: Path, job: Any) -> None:
    """Write to the wire what is not in the protocol."""
    os.write(job._wire._descriptor, (target or "not json").encode() + b"\n")
    time.sleep(40)


def endless(_target: str, _source: Path, _output: Path, job: Any) -> None:
    """Send a line that does not end."""
    while True:
        os.write(job._wire._descriptor, b"x" * 65536)


def mute(_target: str, *_: Any) -> None:
    """End with success and without a word."""
    os._exit(0)


def children(target: str, *_: Any) -> None:
    """Let a child print to what it takes for stdout."""
    subprocess.run(["/bin/echo", target or '{"event": "done"}'], check=True)


def _uncheck() -> None:
    import convert

    del convert.check


def _attempt(act: Any) -> str:
    try:
        return str(act())
    except (OSError, ValueError) as error:
        return f"refused: {error}"


ACTS = {
    name: function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", "") == __name__ and name[0] != "_"
}
