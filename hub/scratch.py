"""The scratch folders: one an attempt, named by job and lease token, gone when the attempt ends."""

import logging
import os
import re
import shutil
from pathlib import Path

from sqlmodel import col, select

from hub import db
from hub.config import Settings
from hub.leases import HELD, clock
from hub.models import Job

log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{1,10})-(\d{1,10})")


def remove(folder: Path) -> None:
    """Delete a scratch folder, also where a converter took away the right to enter its folders."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError:
        for parent, folders, _files in os.walk(folder):
            Path(parent).chmod(0o700)
            for name in folders:
                if not (inner := Path(parent, name)).is_symlink():
                    inner.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            log.warning("%s could not be removed whole; the next sweep tries again", folder)


def abandoned(settings: Settings) -> list[Path]:
    """What lost workers left: every attempt's folder that no lease holds any more.

    A lease that ran out holds nothing, even before the job is taken back: that is a write, and on a
    full disk the folder of the lost attempt is what stands in its way.
    """
    if not settings.scratch.is_dir():
        return []
    # Listed before the rows are read: a job is claimed before its folder is made.
    found = {path.name: path for path in settings.scratch.iterdir() if _NAME.fullmatch(path.name)}
    if not found:
        return []
    with db.reading(settings.database) as session:
        alive = col(Job.lease_until) >= clock(session)
        rows = session.exec(select(Job.id, Job.lease_token).where(col(Job.state).in_(HELD), alive))
        held = {f"{number}-{token}" for number, token in rows}
    return [found[name] for name in sorted(found.keys() - held)]


def strange(settings: Settings) -> list[Path]:
    """What no attempt is named after, as the folders of `slmhub plugins check` that was killed."""
    if not settings.scratch.is_dir():
        return []
    return sorted(path for path in settings.scratch.iterdir() if not _NAME.fullmatch(path.name))


def sweep(settings: Settings) -> list[str]:
    """Delete what lost workers left; the names of the folders."""
    left = abandoned(settings)
    for folder in left:
        remove(folder)
    return [folder.name for folder in left]
