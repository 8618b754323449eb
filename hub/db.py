"""The database: one engine a process, short transactions, one code for SQLite and PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, create_engine

from hub.config import ROOT

IDLE_TIMEOUT = 60.0
"""Seconds after which PostgreSQL ends a writer that does nothing: its machine stands still."""
_IDLE = "25P03"  # SQLSTATE idle_in_transaction_session_timeout


@lru_cache(maxsize=8)
def engine(url: str) -> Engine:
    """The engine of a database URL, made once a process."""
    if not url.startswith("sqlite"):
        # pool_pre_ping: a database that went away and came back is found at the next request.
        # connect_timeout: one whose host is silent holds no request for longer than five seconds.
        # The others: a host that vanished without a word is found within half a minute, not hours.
        waits = {"connect_timeout": 5, "keepalives_idle": 15, "keepalives_interval": 5}
        waits |= {"keepalives_count": 3, "tcp_user_timeout": 30_000}
        made = create_engine(url, pool_pre_ping=True, pool_recycle=300, connect_args=waits)

        @event.listens_for(made, "begin")
        def _bound(connection: Any) -> None:
            # A worker that was suspended in here would keep others from its rows until it wakes up.
            if connection.get_execution_options().get("writes", False):
                connection.exec_driver_sql(
                    f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT * 1000:.0f}"
                )

        @event.listens_for(made, "handle_error")
        def _away(context: Any) -> None:
            # The connection is gone, as when the server is: whoever tries again gets another one.
            cause = context.original_exception
            if getattr(cause, "sqlstate", None) == _IDLE:
                raise OperationalError(context.statement, context.parameters, cause) from cause

        return made
    made = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(made, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # SQLAlchemy begins transactions itself below: pysqlite would do so late and let two readers
        # both turn writers, of which one fails at once, whatever the timeout.
        connection.isolation_level = None
        connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "PRAGMA foreign_keys=ON; PRAGMA busy_timeout=30000;"
        )

    @event.listens_for(made, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


@contextmanager
def reading(url: str) -> Iterator[Session]:
    """A session to read in; nothing of it is kept."""
    with Session(engine(url)) as session:
        yield session


@contextmanager
def writing(url: str) -> Iterator[Session]:
    """A session to write in: committed at the end, rolled back on an error. Keep it short."""
    writer = engine(url).execution_options(writes=True)
    with Session(writer, expire_on_commit=False) as session, session.begin():
        yield session


def migrate(url: str) -> None:
    """Bring the database to the newest schema."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "hub" / "migrations"))
    config.attributes["engine"] = engine(url)
    command.upgrade(config, "head")
