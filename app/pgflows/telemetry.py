"""OpenTelemetry, on when an OTLP endpoint is configured; otherwise silent and free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from pgflows.config import Settings

_tracer: trace.Tracer | None = None


class Described(Protocol):
    """What a span says about a step run."""

    @property
    def instance_id(self) -> Any: ...
    @property
    def step_key(self) -> str: ...
    @property
    def attempt(self) -> int: ...


def setup(settings: Settings) -> bool:
    """Turns tracing on if an endpoint is set, here or by OTEL_EXPORTER_OTLP_ENDPOINT."""
    global _tracer
    endpoint = settings.otlp_endpoint
    if not endpoint and not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return False
    if _tracer is None:
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
        provider = TracerProvider(resource=Resource.create({"service.name": "pgflows"}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        _tracer = provider.get_tracer("pgflows")
    return True


def instrument(fastapi: Any) -> None:
    """A span for each request of the service."""
    FastAPIInstrumentor.instrument_app(fastapi)


@contextmanager
def step_span(name: str, step: Described) -> Iterator[None]:
    """A span around one attempt of a step."""
    if _tracer is None:
        yield
        return
    attributes: dict[str, str | int] = {
        "pgflows.instance_id": str(step.instance_id),
        "pgflows.step_key": step.step_key,
        "pgflows.attempt": step.attempt,
    }
    with _tracer.start_as_current_span(f"step {name}", attributes=attributes):
        yield
