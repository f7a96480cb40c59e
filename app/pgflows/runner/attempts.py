"""One claimed step: its attempts with their time limit and back-off, each recorded in the ledger.

Everything around a step's function has its place here: the input is validated, the span opened,
the function called, its result or error turned into a value. Whatever a step does ends as a
value, and every value is recorded: a claim that this process holds and does not work on would
block the step for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from pgflows import telemetry
from pgflows.app import WorkflowApp
from pgflows.context import StepContext
from pgflows.crash import crash_point
from pgflows.definitions import RetryConfig, Step
from pgflows.errors import OutcomeRefused
from pgflows.ledger.ledger import Claim, Ledger, Record
from pgflows.ledger.request import StepRequest
from pgflows.runner.failure import Failure
from pgflows.runner.functions import Raised, Returned, StepFunctions, TimedOut
from pgflows.runner.outcome import (
    Cancelled,
    Completed,
    Failed,
    Later,
    Outcome,
    Running,
    Unknown,
)
from pgflows.runner.output import as_json

log = logging.getLogger("pgflows.step")

SHORTEST_ATTEMPT_SECONDS = 1.0  # a retry inside the call has this much time, or is left for later
INTERRUPTED = Failure("Interrupted", "the service stopped before the attempt ended", retryable=True)


class Attempts:
    """Runs claimed steps of an app."""

    def __init__(self, app: WorkflowApp, ledger: Ledger, functions: StepFunctions) -> None:
        self._app = app
        self._ledger = ledger
        self._functions = functions

    async def run(
        self, step: Step[Any, Any], request: StepRequest, claim: Claim, deadline: float
    ) -> Outcome:
        """Makes attempts until one ends well, none is left, or the next does not fit into this
        call, which ends at `deadline` (of time.monotonic). Being cancelled, it releases the step:
        another service may begin it anew at once.
        """
        assert claim.instance_id is not None  # noqa: S101 - a claim names its instance
        if claim.deaths:
            log.warning(
                "step %s of %s: attempt %d; %d before it ended with the death of their process",
                request.step_key, claim.instance_id, claim.attempt, claim.deaths,
            )  # fmt: skip
        instance_id, attempt, retry = claim.instance_id, claim.attempt, _policy(step, claim)
        wait = 0.0
        try:
            while True:
                began = time.monotonic() + wait
                try:
                    if wait:
                        await asyncio.sleep(wait)
                    result = await self._attempt(step, request, instance_id, attempt)
                except asyncio.CancelledError:
                    result = INTERRUPTED
                seconds = max(time.monotonic() - began, 0)
                record = Record(instance_id, request.step_key, attempt, seconds, "completed")
                if result is INTERRUPTED:
                    await self._ledger.record(_failed(record, INTERRUPTED, "release", 0.0))
                    return Later(0.0, INTERRUPTED.message)
                if isinstance(result, bytes):
                    return await self._complete(request, record, result)
                if not result.retryable or attempt > retry.max_retries:
                    return await self._give_up(request, record, result)
                asked = result.retry_after
                wait = retry.delay(attempt) if asked is None else asked
                shortest = min(self._app.step_timeout(step), SHORTEST_ATTEMPT_SECONDS)
                fits = time.monotonic() + wait + shortest < deadline and not self._functions.is_full
                log.warning(
                    "step %s of %s: attempt %d failed (%s: %s); again in %.3g s",
                    request.step_key, instance_id, attempt, result.type, result.message, wait,
                )  # fmt: skip
                outcome = "retry" if fits else "release"
                if not await self._ledger.record(_failed(record, result, outcome, wait)):
                    return Running()
                if not fits:
                    return Later(wait, "the next attempt is not due yet")
                attempt += 1
        finally:
            self._ledger.forget(instance_id, request.step_key)

    async def _attempt(
        self, step: Step[Any, Any], request: StepRequest, instance_id: UUID, attempt: int
    ) -> bytes | Failure:
        """One attempt: the output as JSON, or what went wrong."""
        try:
            given = step.input_model.model_validate_json(request.body)
        except ValidationError as e:
            return Failure.of_input(e)
        except BaseException as e:  # a validator of the user's, with an error of its own
            return Failure.of(e)
        timeout = self._app.step_timeout(step)
        context = _context(request, instance_id, attempt, timeout)
        crash_point("in_step")
        with telemetry.step_span(step.name, context):
            ending = await self._functions.call(step, context, given, timeout)
        match ending:
            case Returned(output):
                crash_point("after_effect")
                return as_json(step, output)
            case Raised(error):
                return Failure.of(error)
            case TimedOut():
                return Failure("StepTimeout", f"the attempt took longer than {timeout:g} s", True)

    async def _complete(self, request: StepRequest, record: Record, output: bytes) -> Outcome:
        try:
            otherwise = await self._settle(request, replace(record, output=output.decode()))
        except OutcomeRefused as e:
            return await self._give_up(request, record, Failure("WrongResult", e.message))
        crash_point("after_record")
        return otherwise or Completed(output)

    async def _give_up(self, request: StepRequest, record: Record, failure: Failure) -> Outcome:
        log.error(
            "step %s of %s failed for good after %d attempts: %s: %s",
            record.step_key, record.instance_id, record.attempt, failure.type, failure.message,
        )  # fmt: skip
        record = replace(_failed(record, failure, "failed"), error=failure.to_json())
        return await self._settle(request, record) or Failed(failure)

    async def _settle(self, request: StepRequest, record: Record) -> Outcome | None:
        """Records how the step ended. An outcome means that it is not this process's to say.

        A server that crashed may have forgotten the claim: it is made again, for the outcome that
        is here already.
        """
        while not await self._ledger.record(record):
            claim = await self._ledger.claim(request)
            if claim.verdict != "run":
                return outcome_of(claim)
            record = replace(record, attempt=claim.attempt)
        return None


def outcome_of(claim: Claim) -> Outcome:
    """What the ledger answers when the step is not this process's to run."""
    match claim.verdict:
        case "completed":
            return Completed((claim.output or "null").encode())
        case "failed":
            return Failed(Failure.from_json(claim.error))
        case "cancelled":
            return Cancelled()
        case "running":
            return Running()
        case "later":
            return Later(claim.retry_in, "the next attempt is not due yet")
        case "suspect":
            return Later(claim.retry_in, "it may have killed its process and waits to run alone")
        case _:
            return Unknown()


def _policy(step: Step[Any, Any], claim: Claim) -> RetryConfig:
    """The step's own, else the workflow's as it was when the graph asked, else the default."""
    if step.retry is None and claim.retry:
        try:
            return RetryConfig.model_validate_json(claim.retry)
        except ValidationError as e:  # of another version of pgflows
            log.warning("the retry policy of the workflow is not used: %s", e)
    return step.retry or RetryConfig()


def _context(request: StepRequest, instance_id: UUID, attempt: int, timeout: float) -> StepContext:
    where = {
        "instance_id": str(instance_id),
        "step_key": request.step_key,
        "attempt": attempt,
    }
    return StepContext(
        instance_id=instance_id,
        df_id=request.df_id,
        step_key=request.step_key,
        attempt=attempt,
        idempotency_key=f"{instance_id}:{request.step_key}",
        logger=logging.LoggerAdapter(log, where),
        deadline=datetime.now(UTC) + timedelta(seconds=timeout),
    )


def _failed(
    record: Record, failure: Failure, outcome: str, retry_in: float | None = None
) -> Record:
    return replace(
        record,
        outcome=outcome,
        error_type=failure.type,
        message=failure.message,
        traceback=failure.traceback,
        retry_in=retry_in,
    )
