"""How sessions log in: as the owner, and as the role that submitted an instance."""

from __future__ import annotations

import asyncpg

from pgflows.database.connections import BATCHES, NODES, Connection, Kind, connect
from pgflows.database.dsn import as_role, user_of
from pgflows.database.faults import ANY
from pgflows.errors import DatabaseGone, LoginRefused, SetupError

RUN_ROLE = "pgflows_run"
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InsufficientPrivilegeError,
)


class Logins:
    """Knows how to log in as each role.

    pgflows_run by its own DSN or the password kept in pgflows.run_login, the owner by the owner's
    DSN. Any other role by the owner's DSN with the role as user and no password, so the server must
    trust the engine's address or a password file must know the role.
    """

    def __init__(self, dsn: str, run_dsn: str | None = None) -> None:
        self.dsn = dsn
        self._run_dsn = run_dsn

    async def connect(self, kind: Kind) -> Connection:
        """A session of the owner."""
        return await connect(self.dsn, kind)

    async def learn(self, conn: Connection) -> None:
        """Reads how to log in as pgflows_run, unless a setting says it."""
        if self._run_dsn is None:
            password = await conn.fetchval("select password from pgflows.run_login")
            if password:
                self._run_dsn = as_role(self.dsn, RUN_ROLE, password)

    async def connect_as(
        self, role: str, kind: Kind = NODES, *, database: str | None = None
    ) -> Connection:
        """A session of a role. Raises LoginRefused or DatabaseGone where there will be none, the
        connection's error where the server is away.
        """
        if not role:  # a DSN without a user would log in as somebody else
            raise LoginRefused(
                "Failed to connect: the role that submitted this instance is gone", role=role
            )
        if role == RUN_ROLE and self._run_dsn:
            dsn = self._run_dsn
        elif role == user_of(self.dsn):
            dsn = self.dsn
        else:
            dsn = as_role(self.dsn, role, None)
        try:
            return await connect(dsn, kind, database=database)
        except asyncpg.InvalidCatalogNameError as e:
            raise DatabaseGone(f"the database of this instance is gone: {e}") from e
        except REFUSED as e:
            raise LoginRefused(
                f"Failed to connect as '{role}', the role that submitted this instance: {e}. "
                "Let the server trust the engine's address for that role, or give the engine a "
                "password file that knows it",
                role=role,
            ) from e


async def check_run_role(dsn: str, run_dsn: str | None) -> None:
    """Raises SetupError where pgflows_run is refused; a database that is away is waited for."""
    logins = Logins(dsn, run_dsn)
    try:
        conn = await logins.connect(BATCHES)
        try:
            if run_dsn is None:
                await logins.learn(conn)
        finally:
            await conn.close()
        await (await logins.connect_as(RUN_ROLE, BATCHES)).close()
    except (LoginRefused, DatabaseGone) as e:
        raise SetupError(
            f"the engine cannot log in as {RUN_ROLE}: {e.__cause__ or e}; "
            f"set PGFLOWS_RUN_DSN to a DSN that logs in as {RUN_ROLE}"
        ) from e
    except ANY:
        return
