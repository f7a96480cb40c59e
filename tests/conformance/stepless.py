"""An app whose workflows call no step."""

from __future__ import annotations

from pydantic import BaseModel, Field

from pgflows.app import WorkflowApp
from pgflows.context import WorkflowContext


class Place(BaseModel):
    """Somewhere."""

    city: str = Field(examples=["Ulm"])


class Letter(BaseModel):
    """Something that goes there."""

    to: Place
    text: str = "hello"


app = WorkflowApp()


@app.workflow
async def destination(ctx: WorkflowContext, input: Letter) -> Place:
    """Where it goes."""
    return input.to


@app.workflow
async def copy(ctx: WorkflowContext, input: Letter) -> Letter:
    """The same again."""
    return input
