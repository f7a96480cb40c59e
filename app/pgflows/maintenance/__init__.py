"""What has to be done now and then by somebody, with or without an engine in the process.

Every service and every engine process opens it; an advisory lock picks the one that works.
"""

from pgflows.maintenance.leader import open_maintenance

__all__ = ["open_maintenance"]
