"""What a start and a cancel are asked with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pgflows.messages.values import JsonObject, Label, Reason


class StartRequest(BaseModel):
    """What a workflow is started with."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"input": {"order_id": "ORD-1", "amount": 99.0}, "label": "web"}]
        },
    )

    input: JsonObject = Field(description="Fits the workflow's input model")
    label: Label | None = Field(None, description="A name of your own to find instances by")
    attributes: JsonObject = Field(
        default_factory=dict, description="Anything else to keep with the instance"
    )


class CancelRequest(BaseModel):
    """Why an instance is cancelled."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "ordered twice"}]}
    )

    reason: Reason | None = None
