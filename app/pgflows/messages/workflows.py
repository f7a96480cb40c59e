"""Workflows that are registered."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class WorkflowInfo(BaseModel):
    """A registered workflow."""

    name: str = Field(examples=["process_order"])
    version: str = Field(examples=["1"])
    checksum: str
    registered_at: datetime
    definition: dict[str, Any] = Field(
        description="The steps with their retry policy, and the graph as data"
    )
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class WorkflowList(BaseModel):
    """What can be started."""

    workflows: list[WorkflowInfo]
