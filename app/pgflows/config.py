"""What a deployment may set, read once from the environment (`PGFLOWS_*`)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Urls = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Every setting has a default that is safe on a laptop; lists are comma-separated."""

    model_config = SettingsConfigDict(env_prefix="PGFLOWS_", env_ignore_empty=True, frozen=True)

    app: str = Field("steps:app", description="Where the WorkflowApp is: module:attribute")
    dsn: str | None = Field(
        None, description="The owner's connection string; unset means the embedded server"
    )
    run_dsn: str | None = Field(
        None, description="How to log in as pgflows_run, if its password is not ours to choose"
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    base_url: str | None = Field(
        None, description="Where engines reach the steps; unset means http://HOST:PORT"
    )
    api_keys: Urls = Field((), description="Keys of the control API; needed beyond loopback")
    allowed_hosts: Urls = Field(
        (), description="Names, besides those of loopback, that the API without keys answers to"
    )
    http_targets: Urls = Field(
        (), description="URL prefixes that df.http may call besides the registered base URLs"
    )
    http_max_response: int = Field(
        8 * 1024 * 1024, ge=1024, description="Bytes of an answer that an HTTP node takes"
    )
    data_dir: str = Field(".pgflows", description="Directory of the embedded server")
    pool_size: int = Field(
        10,
        ge=1,
        description="Connections of the API to the database; half of them, and at least one, read",
    )
    step_timeout: float = Field(60.0, gt=0, description="Seconds an attempt may take by default")
    step_concurrency: int = Field(100, ge=1, description="Steps that one service runs at once")
    engine_instances: int = Field(1000, ge=1, description="Instances an engine holds in memory")
    retention_days: float = Field(
        30, gt=0, description="Days after its end when a run is deleted, with its history"
    )
    otlp_endpoint: str | None = Field(None, description="Where spans go; unset means no tracing")

    @field_validator("api_keys", "allowed_hosts", "http_targets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", entry):
                raise ValueError(
                    f"{entry!r} is not a host name: write a name or an address (IPv6 in brackets), "
                    "without scheme, port and wildcards"
                )
        return tuple(entry.strip("[]").lower().removesuffix(".") for entry in value)

    @field_validator("http_targets")
    @classmethod
    def _are_prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.match(r"(private:)?https?://[^/?#@]+(/[^?#]*)?$", entry):
                raise ValueError(
                    f"{entry!r} is not a URL prefix: write http(s)://host[:port][/path], with "
                    "private: before it if the host may be in a private network"
                )
        return value

    @field_validator("base_url", "otlp_endpoint")
    @classmethod
    def _no_slash(cls, value: str | None) -> str | None:
        return _checked_url(value).rstrip("/") if value else None

    @classmethod
    def given(cls, **options: object) -> Self:
        """The environment's settings, with those options in front that are not None."""
        chosen = {name: value for name, value in options.items() if value is not None}
        return cls.model_validate(cls().model_dump() | chosen)

    @property
    def listens_anywhere(self) -> bool:
        """Whether `host` stands for every address of the machine."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound

    @property
    def local_url(self) -> str:
        """Where this machine reaches the service."""
        host = "127.0.0.1" if self.listens_anywhere else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def step_base_url(self) -> str:
        """The literal in every rendered graph: where engines call the steps."""
        return self.base_url or self.local_url


def _checked_url(url: str) -> str:
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError(f"{url!r} is not a URL: it must begin with http:// or https:// and a host")
    return url


def is_loopback(host: str | None) -> bool:
    """Whether an address is this machine's own; anything unknown is not."""
    try:
        return host is not None and ip_address(host).is_loopback
    except ValueError:
        return False
