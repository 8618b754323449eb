"""The folder of a plugin's environments: which are in use, and what of it nothing needs any more.

Who converts holds the environment's folder, who installs or collects holds the plugin's `.lock`.
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


def leftovers(parent: Path, current: Collection[str] | None = None) -> list[Path]:
    """What nothing needs in the folder of one plugin: folders that no link names, replaced or never
    finished, and links that were not put in place.

    With `current`, the names of the only links that count, also the others and all beside them.
    """
    found = [path for path in sorted(parent.iterdir()) if not path.name.startswith(".")]
    links = [
        path
        for path in found
        if path.is_symlink()
        and (path.suffix != ".link" if current is None else path.name in current)
    ]
    kept = {path.name for path in links} | {path.readlink().name for path in links}
    return [
        path
        for path in found
        if path.name not in kept and (current is not None or path.is_dir() or path.is_symlink())
    ]


@contextmanager
def in_use(environment: Path) -> Iterator[None]:
    """Hold an environment: one that is in use is not removed when it is replaced."""
    if not environment.exists():
        yield
        return
    descriptor = os.open(environment, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no conversion holds the environment, and none can while this lasts."""
    if path.is_symlink() or not path.is_dir():
        yield True
        return
    with _alone(path, os.O_DIRECTORY) as alone:
        yield alone


@contextmanager
def not_installing(parent: Path) -> Iterator[bool]:
    """Whether nobody builds an environment of the plugin, and nobody can while this lasts."""
    if not (parent / ".lock").exists():  # nobody ever did
        yield True
        return
    with _alone(parent / ".lock") as alone:
        yield alone


@contextmanager
def _alone(path: Path, flags: int = 0) -> Iterator[bool]:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
