"""What `pgflows doctor` finds, and what its checks look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

from pgflows.config import Settings
from pgflows.database.connections import Connection

OK = "ok"
WARNING = "warning"
BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, warning or broken."""

    verdict: str
    what: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """A database that can be reached. `ours` is False beside the extension pg_durable."""

    conn: Connection
    dsn: str
    settings: Settings
    ours: bool


Check = Callable[[Look], AsyncIterator[Finding]]
