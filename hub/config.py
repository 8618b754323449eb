"""The settings: environment variables with the prefix HUB_, documented in docs/operating.md."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
GiB = 1024**3


class Settings(BaseSettings):
    """All settings of one hub: sizes in bytes, times in seconds, unless one says otherwise."""

    model_config = SettingsConfigDict(env_prefix="HUB_", env_ignore_empty=True, extra="ignore")

    data: Path = Field(Path("data"), description="Folder of everything the hub keeps")
    host: str = Field("127.0.0.1", description="Address the web server binds to")
    port: int = Field(8080, ge=1, le=65535, description="Port the web server binds to")
    public_url: str = Field("", description="Address clients use, when it is not http://host:port")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="Further Host header values that are answered, comma-separated"
    )
    database_url: str = Field("", description="Database; empty: SQLite in the data folder")
    redis_url: str = Field("", description="Redis; empty: `slmhub up` starts a private one")
    upstream: str = Field(
        "", description="Endpoint to mirror from; empty: HF_ENDPOINT, else huggingface.co"
    )
    upstream_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="Further hosts that upstream may redirect downloads to, comma-separated"
    )
    namespace: str = Field(
        "hub", description="Organisation that converted repos are published under"
    )
    plugins: Annotated[list[Path], NoDecode] = Field(
        [],
        description="Further folders of plugins, comma-separated; the hub's own are always there",
    )
    admin_token: SecretStr = Field(
        SecretStr(""), description="Token needed to write when not bound to loopback"
    )
    max_parameters: int = Field(
        30_000_000_000, description="Largest model that is mirrored, in parameters"
    )
    allow_pickle: bool = Field(False, description="Mirror pickled weights too (unsafe)")
    sandbox: Literal["strict", "weak"] = Field(
        "strict", description="weak: convert even where the sandbox cannot be had (unsafe)"
    )
    slots: int = Field(1, ge=1, description="Jobs that one worker runs at a time")
    threads: int = Field(
        0, ge=0, description="Threads a conversion may use; 0: all the processor's"
    )
    memory_limit: int = Field(
        0, ge=0, description="Memory a conversion may use; 0: 85 % of the machine's"
    )
    process_limit: int = Field(
        256, ge=1, description="Processes and threads-as-processes of a conversion"
    )
    output_limit: int = Field(200 * GiB, ge=1, description="Bytes a conversion may write")
    job_timeout: int = Field(6 * 3600, ge=1, description="Longest run of one conversion")
    idle_timeout: int = Field(
        3600, ge=1, description="Longest silence of a conversion before it is ended"
    )
    heartbeat: float = Field(10, gt=0, description="Seconds between a worker's signs of life")
    lease: float = Field(
        60, gt=0, description="Seconds without one after which a job is taken back"
    )
    reconcile: float = Field(15, gt=0, description="Seconds between two looks for lost jobs")
    mirror_parts: int = Field(4, ge=1, le=16, description="Parallel parts of a download")
    x_accel: str = Field(
        "", description="Internal nginx location of the blobs; empty: the hub sends them itself"
    )

    @field_validator("allowed_hosts", "upstream_hosts", "plugins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("data", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("plugins", mode="after")
    @classmethod
    def _all_absolute(cls, value: list[Path]) -> list[Path]:
        return [folder.expanduser().resolve() for folder in value]

    @field_validator("database_url", mode="after")
    @classmethod
    def _known_database(cls, value: str) -> str:
        kind = value.partition(":")[0]
        if value and kind not in ("sqlite", "postgres", "postgresql", "postgresql+psycopg"):
            # Without the value: it may hold a password.
            raise ValueError("it begins with neither sqlite: nor postgresql:")
        return value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        if not self.database_url:
            return f"sqlite:///{self.data / 'hub.sqlite'}"
        # psycopg 3 is the driver that is installed; plain postgresql:// would look for psycopg 2.
        head, separator, rest = self.database_url.partition("://")
        return (
            f"postgresql+psycopg://{rest}"
            if separator and head in ("postgres", "postgresql")
            else self.database_url
        )

    @property
    def redis(self) -> str:
        """The URL of Redis; without a setting, the private socket that `slmhub up` listens on."""
        return self.redis_url or f"unix://{self.data / 'redis.sock'}"

    @property
    def upstream_url(self) -> str:
        """The endpoint that models are mirrored from, without a trailing slash."""
        return (self.upstream or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip(
            "/"
        )

    @property
    def base_url(self) -> str:
        """The address that clients use, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def loopback(self) -> bool:
        """Whether the hub is reachable from this machine only, and so has a single user.

        A public address or further host names say that something forwards to it from elsewhere.
        """
        names = [self.host, *(f"//{name}" for name in self.allowed_hosts)]
        if self.public_url:
            names.append(self.public_url)
        hosts = [urlsplit(name).hostname if "//" in name else name for name in names]
        return all(host in ("127.0.0.1", "::1", "localhost") for host in hosts)

    @property
    def plugin_folders(self) -> list[Path]:
        """The folders whose sub-folders are plugins; the first that has a name wins."""
        return [ROOT / "plugins", *self.plugins, self.added_plugins]

    @property
    def added_plugins(self) -> Path:
        """The folder of the plugins that `slmhub plugins add` and `new` put there."""
        return self.data / "plugins"

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    @property
    def environments(self) -> Path:
        return self.data / "environments"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @cached_property
    def hf_token(self) -> str | None:
        """The token for upstream, from HF_TOKEN alone: never from a file of the account."""
        return os.environ.get("HF_TOKEN") or None
