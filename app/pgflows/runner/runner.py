"""The one step path: whoever calls a step, it runs here.

A call claims the step in the ledger, validates the input, runs attempts with their time-out and
back-off, records how each of them ended, and only then answers. A call of a step that is running
joins it.

status  200 output · 409 still running at the deadline · 410 cancelled · 413 output too large · 422
input does not fit · 424 the step failed · 429 too busy, or the next attempt is due later (Retry-
After)
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

from pydantic import BaseModel, ValidationError

from pgflows import telemetry
from pgflows.config import Settings
from pgflows.crash import crash_point
from pgflows.errors import (
    NonRetryableError,
    OutcomeRefused,
    RetryAfter,
    ServiceUnavailable,
    SignatureRefused,
)
from pgflows.ledger.ledger import Ledger, Record, StepCall, Verdict
from pgflows.registry import RetryConfig, Step, StepContext, WorkflowApp, call_timeout

__all__ = ["Runner", "StepCall", "StepOutcome"]

log = logging.getLogger("pgflows.step")

MARGIN_SECONDS, PLACE_SECONDS = 5.0, 1.0
FIRST_LOOK, LAST_LOOK = 0.02, 0.5
LARGEST_OUTPUT = 8 * 1024 * 1024
NO_HEADERS: Mapping[str, str] = {}
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the character, not a text that spells it


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The answer to a push: status, JSON body, headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)


def _later(seconds: float, detail: str) -> StepOutcome:
    body = json.dumps({"detail": detail}).encode()
    return StepOutcome(429, body, {"Retry-After": f"{max(seconds, 0):.3f}"})


def _failed(error: Mapping[str, Any]) -> StepOutcome:
    body = {"error": dict(error), "retryable": False, "retry_after": None}
    status = TERMINAL.get(str(error.get("type")), 424)
    return StepOutcome(status, json.dumps(body).encode())


STILL_RUNNING = StepOutcome(409, b'{"detail":"the step is still running"}')
CANCELLED = StepOutcome(410, b'{"detail":"the instance was cancelled, or is gone"}')
TERMINAL = {"InvalidInput": 422, "OutputTooLarge": 413}


@dataclass(frozen=True, slots=True)
class _Failure:
    """What an attempt ended with, other than a result."""

    type: str
    message: str
    retryable: bool
    traceback: str | None = None
    retry_after: float | None = None

    def error(self) -> str:
        return json.dumps({"type": self.type, "message": self.message})


class Runner:
    """Runs the steps of an app on behalf of pushes. `async with` drains it at the end."""

    def __init__(self, app: WorkflowApp, ledger: Ledger, settings: Settings) -> None:
        self._app = app
        self._ledger = ledger
        self._settings = settings
        self._running: dict[tuple[str, str], asyncio.Task[StepOutcome]] = {}
        self._places = asyncio.Semaphore(settings.step_concurrency)
        self._threads = ThreadPoolExecutor(settings.step_concurrency, "pgflows-step")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    async def drain(self, seconds: float = 5.0) -> None:
        """Lets running steps end; those that do not are cancelled, and taken over elsewhere."""
        tasks = list(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run_step(self, call: StepCall) -> StepOutcome:
        """Answers a verified call of a known step. A caller that goes away stops nothing."""
        step = self._app.steps[call.step]
        deadline = time.monotonic() + call_timeout(self._app.step_timeout(step)) - MARGIN_SECONDS
        key = (call.df_id, call.step_key)
        task = self._running.get(key)
        if task is None:
            if not await self._place():
                return _later(1.0, "this service runs as many steps as it may")
            task = self._running.get(key)
            if task is None:
                task = asyncio.create_task(self._serve(step, call, deadline))
                self._running[key] = task
                task.add_done_callback(lambda done: self._ended(key, done))
            else:
                self._places.release()  # another call began it meanwhile
        await asyncio.wait([task], timeout=deadline - time.monotonic())
        if task.cancelled():
            raise ServiceUnavailable("this service is shutting down")
        return task.result() if task.done() else STILL_RUNNING

    async def _place(self) -> bool:
        """Waits a moment for a step to end: a refusal would cost the caller a whole second."""
        if not self._places.locked():
            return await self._places.acquire()
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                return await self._places.acquire()
        except TimeoutError:
            return False

    def _ended(self, key: tuple[str, str], task: asyncio.Task[StepOutcome]) -> None:
        del self._running[key]
        self._places.release()
        if not task.cancelled():
            task.exception()  # looked at: the caller may have gone away

    async def _serve(self, step: Step[Any, Any], call: StepCall, deadline: float) -> StepOutcome:
        look = FIRST_LOOK
        while True:
            verdict = await self._ledger.claim(call)
            match verdict.verdict:
                case "run":
                    crash_point("after_claim")
                    return await self._attempts(step, call, verdict, deadline)
                case "later" if time.monotonic() + verdict.retry_in < deadline:
                    await asyncio.sleep(verdict.retry_in)
                case "running" if time.monotonic() + look < deadline:
                    await asyncio.sleep(look)
                    look = min(look * 2, LAST_LOOK)
                case _:
                    return _told(verdict)

    async def _attempts(
        self, step: Step[Any, Any], call: StepCall, verdict: Verdict, deadline: float
    ) -> StepOutcome:
        """Attempts until one ends well, none is left, or the next does not fit into this call.

        Whatever a step does ends as a value here, and every value is recorded: a claim that this
        process holds and does not work on would block the step for as long as the process lives.
        """
        assert verdict.instance_id is not None  # noqa: S101 - a claim names its instance
        retry = _policy(step, verdict)
        attempt = verdict.attempt
        try:
            while True:
                began = time.monotonic()
                ended = await self._attempt(step, call, verdict, attempt)
                what = (verdict.instance_id, call.step_key, attempt, time.monotonic() - began)
                if isinstance(ended, bytes):
                    done = Record(*what, "completed", ended.decode())
                    return await self._completed(call, done, ended)
                done = Record(*what, "failed")
                left = retry.max_retries - attempt + 1
                if not ended.retryable or left <= 0:
                    return await self._gave_up(call, done, ended)
                wait = ended.retry_after
                if wait is None:
                    wait = retry.delay(attempt)
                timeout = self._app.step_timeout(step)
                fits = time.monotonic() + wait + min(timeout, 1.0) < deadline
                log.warning(
                    "step %s of %s: attempt %d failed (%s: %s); again in %.3g s",
                    call.step_key, verdict.instance_id, attempt, ended.type, ended.message, wait,
                )  # fmt: skip
                outcome = "retry" if fits else "release"
                if not await self._ledger.record(_ended_by(done, ended, outcome, wait)):
                    return STILL_RUNNING
                if not fits:
                    return _later(wait, "the next attempt is not due yet")
                await asyncio.sleep(wait)
                attempt += 1
        finally:
            self._ledger.forget(verdict.instance_id, call.step_key)

    async def _attempt(
        self, step: Step[Any, Any], call: StepCall, verdict: Verdict, attempt: int
    ) -> bytes | _Failure:
        """One attempt: the output as JSON, or what went wrong."""
        timeout = self._app.step_timeout(step)
        try:
            given = step.input_model.model_validate_json(call.body)
        except ValidationError as e:
            return _Failure("InvalidInput", _says(e), retryable=False)
        except Exception as e:  # a validator of the user's, with an error of its own
            return _failure(e)
        name = f"{verdict.instance_id}:{call.step_key}"
        context = StepContext(
            instance_id=verdict.instance_id,  # type: ignore[arg-type]  # asserted by the caller
            df_id=call.df_id,
            step_key=call.step_key,
            attempt=attempt,
            idempotency_key=name,
            logger=logging.LoggerAdapter(
                log,
                {
                    "instance_id": str(verdict.instance_id),
                    "step_key": call.step_key,
                    "attempt": attempt,
                },
            ),
            deadline=datetime.now(UTC) + timedelta(seconds=timeout),
        )
        crash_point("in_step")
        try:
            async with asyncio.timeout(timeout) as limit:
                with telemetry.step_span(step.name, context):
                    output = await self._call(step, context, given)
        except TimeoutError as e:
            if limit.expired():
                return _Failure("StepTimeout", f"the attempt took longer than {timeout:g} s", True)
            return _failure(e)
        except asyncio.CancelledError as e:
            if cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                raise  # this service is shutting down
            return _failure(e)  # something that the step waited for was cancelled
        except Exception as e:
            return _failure(e)
        crash_point("after_effect")
        return _as_json(step, output)

    async def _call(self, step: Step[Any, Any], context: StepContext, given: Any) -> Any:
        """A step that is not async gets a thread of its own, so that none waits for another."""
        if step.is_async:
            return await step(context, given)

        def run() -> Any:
            try:
                return step.fn(context, given)
            except StopIteration as e:
                raise RuntimeError("the step raised StopIteration") from e  # no future takes it

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, copy_context().run, run)

    async def _completed(self, call: StepCall, done: Record, output: bytes) -> StepOutcome:
        try:
            otherwise = await self._settled(call, done)
        except OutcomeRefused as e:
            done = replace(done, output=None)
            return await self._gave_up(call, done, _Failure("WrongResult", e.message, False))
        crash_point("after_record")
        return otherwise or StepOutcome(200, output)

    async def _gave_up(self, call: StepCall, done: Record, failure: _Failure) -> StepOutcome:
        log.error(
            "step %s of %s failed for good after %d attempts: %s: %s",
            done.step_key, done.instance_id, done.attempt, failure.type, failure.message,
        )  # fmt: skip
        record = replace(_ended_by(done, failure, "failed"), error=failure.error())
        otherwise = await self._settled(call, record)
        return otherwise or _failed({"type": failure.type, "message": failure.message})

    async def _settled(self, call: StepCall, record: Record) -> StepOutcome | None:
        """Records how the step ended. An answer means that it is not this process's to say.

        A server that crashed may have forgotten the claim: it is made again, for the outcome that
        is here already.
        """
        while not await self._ledger.record(record):
            verdict = await self._ledger.claim(call)
            if verdict.verdict != "run":
                return _told(verdict)
            record = replace(record, attempt=verdict.attempt)
        return None


def _policy(step: Step[Any, Any], verdict: Verdict) -> RetryConfig:
    """The step's own, else the workflow's as it was when the graph asked, else the default."""
    if step.retry is None and verdict.retry:
        try:
            return RetryConfig.model_validate_json(verdict.retry)
        except ValidationError as e:  # of another version of pgflows
            log.warning("the retry policy of the workflow is not used: %s", e)
    return step.retry or RetryConfig()


def _ended_by(
    done: Record, failure: _Failure, outcome: str, retry_in: float | None = None
) -> Record:
    return replace(
        done,
        outcome=outcome,
        error_type=failure.type,
        message=failure.message,
        traceback=failure.traceback,
        retry_in=retry_in,
    )


def _told(verdict: Verdict) -> StepOutcome:
    """What the ledger says, as an answer."""
    match verdict.verdict:
        case "completed":
            return StepOutcome(200, (verdict.output or "null").encode())
        case "failed":
            return _failed(json.loads(verdict.error or "{}"))
        case "cancelled":
            return CANCELLED
        case "running":
            return STILL_RUNNING
        case "later":
            return _later(verdict.retry_in, "the next attempt is not due yet")
        case "closed":
            raise SignatureRefused("the step ended long ago", reason="closed")
        case _:
            raise SignatureRefused("no such call is open", reason="unknown-call")


def _clean(text: str, most: int = 10_000) -> str:
    """PostgreSQL stores neither U+0000 nor halves of surrogate pairs."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _failure(error: BaseException) -> _Failure:
    wait = error.seconds if isinstance(error, RetryAfter) else None
    if wait is not None and not (math.isfinite(wait) and wait >= 0):
        wait = None
    try:
        message, told = str(error), "".join(traceback.format_exception(error))
    except Exception:  # an error that cannot tell itself
        message, told = "(the error has no text)", ""
    return _Failure(
        type(error).__name__,
        _clean(message),
        retryable=not isinstance(error, NonRetryableError),
        traceback=_clean(told, 50_000),
        retry_after=wait,
    )


def _says(error: ValidationError) -> str:
    parts = [f"{'.'.join(map(str, e['loc'])) or 'input'}: {e['msg']}" for e in error.errors()]
    return _clean("; ".join(parts))


def _as_json(step: Step[Any, Any], output: Any) -> bytes | _Failure:
    """The result as JSON, if it is what the step promised and PostgreSQL can hold it."""
    if not isinstance(output, BaseModel) or not isinstance(output, step.output_model):
        name = type(output).__name__
        text = f"the step returned {name}, not {step.output_model.__name__}"
        return _Failure("WrongResult", text, retryable=False)
    try:
        text = output.model_dump_json(by_alias=True)
        raw = text.encode()
    except UnicodeEncodeError:
        return _Failure("WrongResult", "the result holds half of a surrogate pair", False)
    except Exception as e:  # a field that JSON has no form for, or a serializer of the user's
        why = _failure(e)
        text = f"the result cannot be written as JSON: {why.message}"
        return replace(why, type="WrongResult", message=text, retryable=False)
    if NUL.search(text):
        return _Failure("WrongResult", "the result holds the character U+0000", False)
    if len(raw) > LARGEST_OUTPUT:
        text = f"the result of {step.name} has {len(raw)} bytes, the limit is {LARGEST_OUTPUT}"
        return _Failure("OutputTooLarge", text, retryable=False)
    return raw
