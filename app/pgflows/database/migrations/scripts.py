"""The SQL files that make up the schema, in the order in which they are applied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pgflows.database.roles import RUN_ROLE
from pgflows.errors import MigrationError

FOLDERS = ("migrations", "df", "functions")  # in the order of application

# The statements that must have run before the first script can be recorded.
BOOTSTRAP = """
create schema if not exists pgflows;
create table if not exists pgflows.migrations (
  name text primary key, number integer not null, checksum text not null,
  applied_at timestamptz not null default clock_timestamp()
);
"""


@dataclass(frozen=True)
class Script:
    """One SQL file. `number` is 0 for a repeatable one, which is applied whenever it changed."""

    name: str
    text: str
    number: int

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def makes_df(name: str) -> bool:
    """True for a script that is left out if the extension pg_durable brings `df`."""
    return name.startswith("df/") or bool(re.match(r"migrations/\d+_df_", name))


def sql_directory() -> Path:
    """The directory inside the installed package, or else the one of the checkout."""
    package = Path(__file__).parents[2]
    installed = package / "sql"
    return installed if installed.is_dir() else package.parents[1] / "sql"


@cache
def read_scripts() -> tuple[Script, ...]:
    """All scripts in the order of application."""
    root = sql_directory()
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.sql")):
            number = int(path.name.split("_")[0]) if folder == "migrations" else 0
            found.append(Script(f"{folder}/{path.name}", path.read_text("utf-8"), number))
    return tuple(found)


def wanted_scripts(*, ours: bool) -> list[Script]:
    """The scripts of a database with or without the extension pg_durable."""
    return [s for s in read_scripts() if ours or not makes_df(s.name)]


def plan(wanted: Sequence[Script], applied: Mapping[str, str]) -> list[Script]:
    """The scripts to apply: new migrations, and all repeatable ones if anything is new or changed.

    `applied` has the checksum of each applied script. Raises MigrationError if the database is
    newer than this version, or if a migration was edited after it was applied.
    """
    migrations = [s for s in wanted if s.number]
    known = {s.name for s in migrations}
    newer = sorted(n for n in applied if n.startswith("migrations/") and n not in known)
    if newer:
        raise MigrationError(
            f"this database is newer than this version of pgflows: it has {', '.join(newer)}; "
            "install a version that knows them"
        )
    for script in migrations:
        if applied.get(script.name, script.checksum) != script.checksum:
            raise MigrationError(
                f"{script.name} was edited after it was applied to this database; migrations are "
                "immutable: restore the file and write a new one"
            )
    new = [s for s in migrations if s.name not in applied]
    repeatable = [s for s in wanted if not s.number]
    changed = any(applied.get(s.name) != s.checksum for s in repeatable)
    return new + (repeatable if changed or new else [])


def pgmq_sql() -> str:
    """The server side of pgmq, which its official client brings along.

    Imported here because the import loads a driver that nothing else of pgflows uses.
    """
    from pgmq.install import get_embedded_install_sql

    return str(get_embedded_install_sql())


def print_sql() -> str:
    """All statements of a migration from nothing, for a DBA to read or to run with psql."""
    parts = [
        "-- What `pgflows migrate` runs on an empty database, in one transaction.",
        "-- Run it as the role that is to own everything; the service logs in as that role.",
        f"-- Before it, as a DBA: create role {RUN_ROLE} login password '...';",
        f"--   grant {RUN_ROLE} to the owner; grant create on database and schema public to it.",
        f"-- After it, set PGFLOWS_RUN_DSN to a DSN that logs in as {RUN_ROLE}.",
        "begin;",
        "set local search_path = pg_catalog;",
        BOOTSTRAP,
        "create schema if not exists df;",
        f"grant usage, create on schema pgflows to {RUN_ROLE};",
        "-- pgmq, from its official client",
        pgmq_sql(),
    ]
    for script in read_scripts():
        note = " (left out beside the extension pg_durable)" if makes_df(script.name) else ""
        parts.append(f"-- {script.name}{note}\n{script.text}")
        parts.append(
            "insert into pgflows.migrations (name, number, checksum) values "  # noqa: S608 - file names
            f"('{script.name}', {script.number}, '{script.checksum}');"
        )
    parts += [
        f"revoke create on schema pgflows from {RUN_ROLE};",
        f"select df.grant_usage('{RUN_ROLE}', include_http => true);",
        "select pgflows._record_rights();",
        "commit;",
    ]
    return "\n\n".join(parts) + "\n"
