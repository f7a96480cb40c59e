"""Headers of a step's call, which say what it asks for, and of the ledger's answer to it."""

from __future__ import annotations

INSTANCE = "X-DF-Instance-ID"
STEP_KEY = "X-Pgflows-Step-Key"
SEQ = "X-Pgflows-Seq"
SIGNATURE = "X-Pgflows-Signature"
RECORDED = "X-Pgflows-Recorded"


def recorded(df_id: str, step_key: str) -> str:
    """The value of RECORDED: the outcome of this step of this run is in the ledger."""
    return f"{df_id}/{step_key}"
