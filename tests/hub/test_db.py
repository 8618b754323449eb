"""Transactions: how writers that stand still are kept from holding up everybody else."""

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from hub import db, leases
from hub.config import Settings
from hub.models import Job


@pytest.mark.postgres
def test_a_writer_that_stands_still_loses_its_rows(
    postgres_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_settings.database
    with db.writing(url) as session:
        session.add(Job(kind="convert", request_key="x", repo="org/model"))

    def stand_still() -> None:
        with db.writing(url) as frozen:
            with monkeypatch.context() as patch:
                patch.setattr(db, "IDLE_TIMEOUT", 2)
                job = frozen.exec(select(Job).with_for_update()).one()
            with db.writing(url) as other:  # waits for the row, and gets it
                other.connection().execute(update(Job).values(message="mine"))
            job.message = "late"

    # Whoever holds a job tries again: the reason is one of leases.AWAY.
    with pytest.raises(OperationalError, match="idle"):
        stand_still()
    assert issubclass(OperationalError, leases.AWAY)
    with db.reading(url) as session:
        assert session.exec(select(col(Job.message))).one() == "mine"
