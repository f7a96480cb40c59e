"""The database's schema: the files that make it, the rights they need, and how they are applied."""

from pgflows.database.migrations.apply import check_schema, migrate
from pgflows.database.migrations.scripts import print_sql

__all__ = ["check_schema", "migrate", "print_sql"]
