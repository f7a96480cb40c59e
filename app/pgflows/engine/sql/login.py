"""Connections of an engine: as the owner, and logged in as the role that submitted an instance."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from pgflows.database.connections import LOST
from pgflows.database.migrations.run_role import RUN_ROLE
from pgflows.engine.node.results import NodeFailed, Refused
from pgflows.errors import SetupError

REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InsufficientPrivilegeError,
)


class Logins:
    """Knows how to log in as each role.

    pgflows_run by its own DSN or the password kept in pgflows.run_login; any other role by the
    owner's DSN with the role as user and no password, so the server must trust the engine's
    address or a password file must know the role.
    """

    def __init__(self, dsn: str, run_dsn: str | None = None) -> None:
        self.dsn = dsn
        self._run_dsn = run_dsn

    async def connect(self, **options: Any) -> asyncpg.Connection[Any]:
        conn: asyncpg.Connection[Any] = await asyncpg.connect(self.dsn, **options)
        return conn

    async def learn(self, conn: asyncpg.Connection[Any]) -> None:
        """Reads how to log in as pgflows_run, unless a setting says it."""
        if self._run_dsn is None:
            password = await conn.fetchval("select password from pgflows.run_login")
            if password:
                self._run_dsn = as_role(self.dsn, RUN_ROLE, password)

    async def connect_as(self, role: str, **options: Any) -> asyncpg.Connection[Any]:
        """Raises NodeFailed where the server refuses the role, the connection's error where it is
        away.
        """
        if not role:  # a DSN without a user would log in as somebody else
            raise Refused("Failed to connect: the role that submitted this instance is gone")
        dsn = self._run_dsn if role == RUN_ROLE and self._run_dsn else as_role(self.dsn, role, None)
        try:
            conn: asyncpg.Connection[Any] = await asyncpg.connect(dsn, **options)
        except asyncpg.InvalidCatalogNameError as e:
            raise NodeFailed(f"the database of this instance is gone: {e}") from e
        except REFUSED as e:
            raise Refused(
                f"Failed to connect as '{role}', the role that submitted this instance: {e}. "
                "Let the server trust the engine's address for that role, or give the engine a "
                "password file that knows it"
            ) from e
        return conn


async def check_run_role(dsn: str, run_dsn: str | None) -> None:
    """Raises SetupError where pgflows_run is refused; a database that is away is waited for."""
    logins = Logins(dsn, run_dsn)
    try:
        conn = await logins.connect()
        try:
            if run_dsn is None:
                await logins.learn(conn)
        finally:
            await conn.close()
        await (await logins.connect_as(RUN_ROLE)).close()
    except NodeFailed as e:
        raise SetupError(
            f"the engine cannot log in as {RUN_ROLE}: {e.__cause__ or e}; "
            f"set PGFLOWS_RUN_DSN to a DSN that logs in as {RUN_ROLE}"
        ) from e
    except (asyncpg.PostgresError, *LOST):
        return


def as_role(dsn: str, role: str, password: str | None) -> str:
    """The DSN with another user. A user or password among the query parameters is replaced too."""
    url = urlsplit(dsn)
    host = url.netloc.rpartition("@")[2]
    user = quote(role, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = "&".join(
        part
        for part in url.query.split("&")
        if part and part.split("=")[0] not in ("user", "password")
    )
    return urlunsplit(url._replace(netloc=f"{user}@{host}", query=query))
