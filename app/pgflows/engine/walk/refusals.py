"""One line in the log `pgflows.audit` for everything that a node tried and was refused.

The transaction that was refused is undone, so no row in the database could tell of it. The line has
the role, the instance, the node and what it wanted; `%r` keeps line breaks out of it.
"""

from __future__ import annotations

import logging

from pgflows.engine.node.graph import Node
from pgflows.engine.node.results import NodeFailed, Refused

log = logging.getLogger("pgflows.audit")

# insufficient privilege, the run or instance of another role, a call that runs may not make
REFUSALS = ("42501", "28000", "28P01", "0LP01", "PF003", "PF014", "PF105")
SHOWN = 500  # characters of a node's text


def note(error: NodeFailed, *, role: str, instance: str, node: Node) -> None:
    """Logs the failure of a node if it is a refusal. The text is the node's own, without values."""
    if isinstance(error, Refused) or error.code in REFUSALS:
        log.warning(
            "refused: role %r, instance %s, node %s (%s): %r: %r",
            role,
            instance,
            node.id,
            node.type,
            error.message[:SHOWN],
            (node.query or "")[:SHOWN],
        )
