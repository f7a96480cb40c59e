"""The system user that runs the embedded server.

PostgreSQL refuses to run as root. If this process is root's, a system user of its own runs the
server, or the user that owns the data directory already.
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
ADMIN_PATH = "/usr/sbin:/sbin"  # not in everybody's PATH

log = logging.getLogger("pgflows.database.embedded")


@dataclass(frozen=True)
class Account:
    """A user of this machine, other than that of this process."""

    uid: int
    gid: int

    def own(self, *paths: Path) -> None:
        for path in paths:
            os.chown(path, self.uid, self.gid)

    def reach(self, paths: Iterable[Path]) -> None:
        """Makes the directories above the paths searchable, if they are not."""
        for parent in {parent for path in paths for parent in path.resolve().parents}:
            mode = parent.stat().st_mode
            if not mode & 0o001 and parent.stat().st_uid != self.uid:
                log.warning("%s is made searchable for others, for the user of PostgreSQL", parent)
                parent.chmod(mode | 0o001)


def account_for(data: Path) -> Account | None:
    """None if this process's own user may run PostgreSQL."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (found := data.stat()).st_uid != 0:
        return Account(found.st_uid, _group_of(found.st_uid, found.st_gid))
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _add_user()
        entry = pwd.getpwnam(SYSTEM_USER)
    return Account(entry.pw_uid, entry.pw_gid)


def _group_of(uid: int, otherwise: int) -> int:
    """The user's own group. The data directory's may be root's, if root has copied it."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return otherwise


def check_entry(account: Account | None) -> None:
    """Raises ServerError if the user that is to run initdb has no name, which it refuses."""
    uid = account.uid if account else os.geteuid()
    try:
        pwd.getpwuid(uid)
    except KeyError as e:
        raise ServerError(
            f"the user {uid} has no entry in /etc/passwd, and PostgreSQL's initdb needs one: add "
            "it, run this as another user, or set PGFLOWS_DSN"
        ) from e


def _add_user() -> None:
    program = shutil.which("useradd", path=f"{os.environ.get('PATH', os.defpath)}:{ADMIN_PATH}")
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
