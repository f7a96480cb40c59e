"""Tracing costs nothing until an endpoint is named."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from uuid import UUID

import pytest

from pgflows import telemetry
from pgflows.config import Settings

STEP = SimpleNamespace(instance_id=UUID(int=1), step_key="charge#1", attempt=2)

TRACED = """
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry import trace
from types import SimpleNamespace
from pgflows import telemetry
from pgflows.config import Settings

assert telemetry.setup(Settings(otlp_endpoint="http://127.0.0.1:1"))
spans = InMemorySpanExporter()
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
step = SimpleNamespace(instance_id=1, step_key="charge#1", attempt=2)
with telemetry.step_span("charge", step):
    pass
(span,) = spans.get_finished_spans()
print(span.name, dict(span.attributes), flush=True)
import os; os._exit(0)
"""


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert not telemetry.setup(Settings())
    with telemetry.step_span("charge", STEP):
        pass


def test_with_an_endpoint_a_step_is_a_span() -> None:
    """In a process of its own: a tracer provider is set once and for all."""
    done = subprocess.run(
        [sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=30, check=False
    )
    said = "{'pgflows.instance_id': '1', 'pgflows.step_key': 'charge#1', 'pgflows.attempt': 2}"
    assert done.stdout.strip().splitlines()[:1] == [f"step charge {said}"], done.stderr
