"""PostgreSQL as pgflows uses it: connections, migrations, roles, and the embedded server."""
