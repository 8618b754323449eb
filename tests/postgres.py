"""A PostgreSQL for tests: HUB_TEST_POSTGRES_URL, else a server of the machine's own programs."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from hub import db
from hub.config import Settings


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, newest version first, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: p.parts[4])
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).parent if path else None


class PostgresServer:
    """A server of its own on a socket in a temporary folder, which a test may stop and start."""

    def __init__(self, bin: Path) -> None:
        self.bin = bin
        self.folder = Path(tempfile.mkdtemp(prefix="slmhub-pg-"))
        # PostgreSQL refuses to run as root.
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.bin / program, "-D", self.folder / "data", *arguments],
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        options += " -c max_connections=200"
        self._run(
            "pg_ctl", "-w", "-t", "280", "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def stop(self) -> None:
        """End it at once, as a crash of its machine would."""
        self._run("pg_ctl", "-w", "-t", "280", "-m", "immediate", "stop")

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a server in which tests make databases."""
    if url := os.environ.get("HUB_TEST_POSTGRES_URL"):
        yield url
        return
    bin = programs()
    if bin is None:
        pytest.skip("PostgreSQL is not installed")
    server = PostgresServer(bin)
    server.start()
    yield server.url
    server.stop()
    server.remove()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that a test has for itself, to stop and start."""
    bin = programs()
    if bin is None:
        pytest.skip("PostgreSQL is not installed")
    server = PostgresServer(bin)
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture
def postgres_settings(postgres_url: str, tmp_path: Path) -> Iterator[Settings]:
    """The settings of an empty hub on PostgreSQL, in a database of its own."""
    name = f"hub_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    database_url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    if not urlsplit(postgres_url).netloc.partition("@")[2]:
        database_url = postgres_url.replace("/postgres?", f"/{name}?")
    made = Settings(data=tmp_path / "data", database_url=database_url)
    made.data.mkdir(exist_ok=True)
    db.migrate(made.database)
    yield made
    db.engine(made.database).dispose()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest) -> Settings:
    """The settings of an empty hub, once on SQLite and once on PostgreSQL."""
    name = "settings" if request.param == "sqlite" else "postgres_settings"
    found: Settings = request.getfixturevalue(name)
    return found
