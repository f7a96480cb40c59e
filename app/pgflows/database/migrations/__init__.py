"""The database's schema: the files that make it, the rights they need, and how they are applied."""

from pgflows.database.migrations.apply import (
    check_schema,
    check_scripts,
    lost_rights,
    migrate,
)
from pgflows.database.migrations.scripts import print_sql

__all__ = ["check_schema", "check_scripts", "lost_rights", "migrate", "print_sql"]
