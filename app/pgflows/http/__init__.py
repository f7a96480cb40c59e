"""The HTTP side: the control API, the push routes, health and metrics, as FastAPI serves them."""

from pgflows.http.app import create_app, pgflows_lifespan
from pgflows.http.router import create_pgflows_router

__all__ = ["create_app", "create_pgflows_router", "pgflows_lifespan"]
