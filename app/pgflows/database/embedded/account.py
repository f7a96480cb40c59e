"""Whose processes the embedded server's are. As root PostgreSQL refuses to run, so a system user of
its own runs it then, or the user that owns the data directory already.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pgflows.errors import ServerError

SYSTEM_USER = "embedded_postgres"

log = logging.getLogger("pgflows.database.embedded")


@dataclass(frozen=True)
class Account:
    """A user of this machine that is not the one of this process."""

    uid: int
    gid: int

    def own(self, *paths: Path) -> None:
        for path in paths:
            os.chown(path, self.uid, self.gid)

    def reach(self, paths: Iterable[Path]) -> None:
        """Makes the directories above the paths searchable, where they are not."""
        for parent in {parent for path in paths for parent in path.resolve().parents}:
            mode = parent.stat().st_mode
            if not mode & 0o001 and parent.stat().st_uid != self.uid:
                log.warning("%s is made searchable for others, for the user of PostgreSQL", parent)
                parent.chmod(mode | 0o001)


def account_for(data: Path) -> Account | None:
    """None where this process's own user may run PostgreSQL."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (found := data.stat()).st_uid != 0:
        return Account(found.st_uid, found.st_gid)
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _add_user()
        entry = pwd.getpwnam(SYSTEM_USER)
    return Account(entry.pw_uid, entry.pw_gid)


def _add_user() -> None:
    program = shutil.which("useradd")
    failure = "there is no useradd here"
    if program:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            [program, "--system", "--no-create-home", SYSTEM_USER],
            capture_output=True,
            check=False,
            text=True,
        )
        if done.returncode in (0, 9):  # 9: somebody else made it meanwhile
            return
        failure = done.stderr.strip()
    raise ServerError(
        f"PostgreSQL does not run as root, and the user {SYSTEM_USER} cannot be made ({failure}): "
        "run this as another user, or set PGFLOWS_DSN"
    )
