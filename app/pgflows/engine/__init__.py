"""The embedded engine: what the background worker of the extension does, as a Python process."""

from pgflows.engine.engine import Engine, open_engine

__all__ = ["Engine", "open_engine"]
