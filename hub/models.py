"""The rows: the only state beside the blobs. Times are seconds since 1970, UTC."""

import time
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class JobState(StrEnum):
    """The states of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (JobState.QUEUED, JobState.RUNNING, JobState.PUBLISHING)
_ACTIVE_SQL = "state IN ('queued', 'running', 'publishing')"


class Repo(SQLModel, table=True):
    """A repo, mirrored or derived, with the facts of its `main` for the catalogue."""

    __table_args__ = (UniqueConstraint("name"), Index("ix_repo_kind_name", "kind", "name"))

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(description="org/name")
    kind: str = Field(description="mirrored or derived")
    main: str = Field(description="The commit that `main` names, 40 hex digits")
    source: str | None = Field(
        default=None, index=True, description="Of a derived repo: the repo it was made from"
    )
    plugin: str | None = Field(
        default=None, description="Of a derived repo: the plugin that made it"
    )
    upstream: str | None = Field(default=None, description="Of a mirrored repo: where it came from")
    tier: str | None = Field(default=None, index=True)
    parameters: int | None = Field(
        default=None, sa_column=Column(BigInteger, index=True, nullable=True)
    )
    active_parameters: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    architecture: str | None = None
    license: str | None = None
    context_length: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    facts: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: float = Field(default_factory=time.time)
    updated_at: float = Field(default_factory=time.time, index=True)


class Commit(SQLModel, table=True):
    """An immutable list of files. A mirrored commit keeps upstream's id."""

    __table_args__ = (UniqueConstraint("repo_id", "sha"),)

    id: int | None = Field(default=None, primary_key=True)
    repo_id: int = Field(foreign_key="repo.id", ondelete="CASCADE")
    sha: str = Field(description="40 lowercase hex digits")
    parent: str | None = None
    message: str = ""
    facts: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: float = Field(default_factory=time.time)


class Ref(SQLModel, table=True):
    """A further name of a commit beside `main`: the branch or tag it was mirrored as."""

    __table_args__ = (UniqueConstraint("repo_id", "name"),)

    id: int | None = Field(default=None, primary_key=True)
    repo_id: int = Field(foreign_key="repo.id", ondelete="CASCADE")
    name: str
    sha: str


class File(SQLModel, table=True):
    """One path of a commit and the blob it names."""

    __table_args__ = (UniqueConstraint("commit_id", "path"),)

    id: int | None = Field(default=None, primary_key=True)
    commit_id: int = Field(foreign_key="commit.id", ondelete="CASCADE")
    path: str
    sha256: str = Field(foreign_key="blob.sha256", index=True)
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    git_sha1: str = Field(description="The id git gives the file, or of large ones its LFS pointer")
    lfs: bool = Field(default=False, description="Known upstream by its SHA-256")


class Removal(SQLModel, table=True):
    """A commit that was removed with its repo: its id never comes to mean other files."""

    __table_args__ = (Index("ix_removal_name_sha", "name", "sha"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(description="The repo, org/name")
    kind: str
    sha: str
    files: dict[str, str] = Field(
        default_factory=dict,
        sa_column=Column(JSON, nullable=False),
        description="{path: sha256}",
    )
    removed_at: float = Field(default_factory=time.time)


class Blob(SQLModel, table=True):
    """Bytes in the store, named by their SHA-256."""

    sha256: str = Field(primary_key=True)
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: float = Field(default_factory=time.time)
    checked_at: float = Field(
        default_factory=time.time, description="When its bytes were last hashed"
    )
    quarantined: bool = Field(default=False, description="Found damaged: never served")


class Job(SQLModel, table=True):
    """A request to mirror or convert, with a state that survives anything."""

    __table_args__ = (
        Index(
            "ux_job_active_request",
            "request_key",
            unique=True,
            sqlite_where=text(_ACTIVE_SQL),
            postgresql_where=text(_ACTIVE_SQL),
        ),
        Index("ix_job_state_id", "state", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    kind: str = Field(description="mirror or convert")
    state: str = JobState.QUEUED
    request_key: str = Field(index=True, description="The same request has the same key")
    repo: str = Field(index=True, description="The repo to mirror or to convert")
    revision: str = Field(default="main", description="As asked for")
    commit: str | None = Field(default=None, description="The source commit, once known")
    plugin: str | None = None
    request: dict[str, Any] = Field(
        default_factory=dict,
        sa_column=Column(JSON, nullable=False),
        description="convert: variants, options, {variant: artefact key} as keys, {variant: bytes} "
        "as sizes; mirror: folder",
    )
    attempt: int = 0
    losses: int = Field(
        default=0, description="How often its worker was lost; the third loss fails it"
    )
    lease_token: int = Field(default=0, description="Grows at every claim: fences off lost workers")
    lease_until: float | None = Field(default=None, index=True)
    heartbeat_at: float | None = None
    notified_at: float | None = Field(default=None, description="When its message was last sent")
    worker: str | None = None
    cancel: bool = Field(default=False, description="Someone asked for it to end")
    progress: float = 0.0
    message: str = ""
    error_kind: str | None = None
    error_message: str | None = None
    error_hint: str | None = None
    created_at: float = Field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None


class Artefact(SQLModel, table=True):
    """The files that one variant of one source commit became, and how."""

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(
        unique=True, description="SHA-256 of source commit, plugin, version, lock, variant, options"
    )
    job_id: int | None = Field(default=None, foreign_key="job.id", ondelete="SET NULL", index=True)
    source: str = Field(index=True, description="The repo it was made from")
    source_commit: str
    plugin: str = Field(index=True)
    plugin_version: str
    lock_digest: str
    variant: str
    options: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    repo: str = Field(index=True, description="The derived repo it was published in")
    commit: str
    files: list[dict[str, Any]] = Field(
        default_factory=list,
        sa_column=Column(JSON, nullable=False),
        description="[{path, size, sha256}]",
    )
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    check_result: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSON, nullable=False)
    )
    tools: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    sandbox: str = Field(description="The isolation it was made in: strict or weak")
    seconds: float = 0.0
    created_at: float = Field(default_factory=time.time)


class Token(SQLModel, table=True):
    """A token that was given out; only its SHA-256 is kept."""

    id: int | None = Field(default=None, primary_key=True)
    name: str
    digest: str = Field(unique=True)
    scope: str = Field(description="read, write or admin")
    created_at: float = Field(default_factory=time.time)
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
