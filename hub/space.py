"""What the disk has for another conversion: what is free, less what those on their way will take.

A conversion that is accepted waits, and others are accepted behind it: each fits alone, and the
last of them would fail for want of space after everybody had waited. Counted is what will be
published. What lies beside it for a while does not add up where jobs run one after the other;
where several run at once, the disk can still get full.
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass

from sqlmodel import Session, col, select

from hub import artefacts
from hub.config import Settings
from hub.models import ACTIVE, Job
from hub.sizes import size

SIZES = "sizes"
"""Where the request of a job keeps the estimated bytes of what it will publish, by variant."""


@dataclass(frozen=True)
class Space:
    """Bytes: what is free, and how much of that the conversions on their way will take."""

    free: int
    reserved: int = 0

    @property
    def left(self) -> int:
        """Bytes that another conversion may use."""
        return max(0, self.free - self.reserved)

    def __str__(self) -> str:
        if not self.reserved:
            return f"{size(self.free)} are free"
        return f"of {size(self.free)} that are free the jobs on their way will take about " + size(
            self.reserved
        )


def available(settings: Settings, session: Session, keys: Collection[str] = ()) -> Space:
    """The disk of the data folder now, for who wants the artefacts with these keys."""
    return Space(shutil.disk_usage(settings.data).free, _reserved(session, keys))


def _reserved(session: Session, keys: Collection[str]) -> int:
    """Bytes of the variants that conversions on their way will publish, but for `keys`.

    What is written in part counts twice, here and on the disk: that is one variant a slot.
    """
    coming: dict[str, int] = {}
    begun: list[str] = []
    rows = session.exec(
        select(Job.started_at, Job.request).where(
            col(Job.kind) == "convert", col(Job.state).in_(ACTIVE)
        )
    )
    for started, request in rows:
        named = {request["keys"][name]: count for name, count in request.get(SIZES, {}).items()}
        coming |= named
        if started is not None:  # also by a worker that was lost, or gave it back
            begun += named
    there = artefacts.published(session, begun)
    return sum(count for key, count in coming.items() if key not in there and key not in keys)
