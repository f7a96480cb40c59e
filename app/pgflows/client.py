"""The typed client of the HTTP API; the commands that go over HTTP are made of it.

    async with Client("http://127.0.0.1:8000") as client:
        started = await client.start("process_order", {"order_id": "ORD-1", "amount": 99.0})
        done = await client.wait(started.instance_id)

What the service refuses is raised as the class of `errors.py` that the service raised itself. A
number of more than 300 digits, and what is nested deeper than 150 levels, arrives as its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

import httpx
from pydantic import BaseModel

from pgflows import errors
from pgflows.config import is_loopback
from pgflows.errors import InvalidRequest, PgflowsError, ServiceUnavailable
from pgflows.messages import (
    PROBLEM,
    History,
    Instance,
    InstancePage,
    InstanceSummary,
    Started,
    Status,
    WorkflowInfo,
    WorkflowList,
    problem_type,
)
from pgflows.readable import readable

Model = TypeVar("Model", bound=BaseModel)

_MEMBERS = {"type", "title", "status", "detail", "instance"}
_LONGEST_WAIT = 300.0

BY_TYPE: Mapping[str, type[PgflowsError]] = {
    problem_type(cls): cls
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and (issubclass(cls, errors.RequestError) or cls is errors.SignatureRefused)
}


class Client:
    """A connection to one pgflows service.

    `transport` is httpx's, for tests and for proxies of the caller's own. The proxies of the
    environment are used for other machines only. Raises InvalidRequest if the URL or such a proxy
    cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 30.0,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.base_url = base_url
        self._timeout = timeout
        if transport is None and _is_this_machine(base_url):
            transport = httpx.AsyncHTTPTransport()  # a given transport goes past all proxies
        try:
            self._http = httpx.AsyncClient(
                base_url=base_url, headers=headers, transport=transport, timeout=timeout
            )
        except (ImportError, ValueError, httpx.InvalidURL) as e:
            raise InvalidRequest(
                f"{base_url} cannot be asked, because of a proxy in HTTP_PROXY, HTTPS_PROXY or "
                f"ALL_PROXY, or of the URL itself: {e}",
                hint="unset the proxy, or add the host to NO_PROXY",
            ) from e

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    async def start(
        self,
        workflow: str,
        input: BaseModel | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        label: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        wait: float = 0,
    ) -> Started:
        """Start a workflow; with `wait`, answer when it has ended, after `wait` seconds at most."""
        data = input.model_dump(mode="json") if isinstance(input, BaseModel) else dict(input)
        response = await self._send(
            "POST",
            f"/workflows/{quote(workflow, safe='')}/start",
            json={"input": data, "label": label, "attributes": dict(attributes or {})},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key is not None else {},
            params={"wait": min(wait, _LONGEST_WAIT)} if wait else {},
            timeout=self._timeout + wait,
        )
        return _read(Started, response)

    async def get(self, instance: UUID | str) -> Instance:
        """An instance by its instance_id or df_id."""
        response = await self._send("GET", f"/instances/{_segment(instance)}")
        return _read(Instance, response)

    async def wait(  # the caller may as well use asyncio.timeout
        self,
        instance: UUID | str,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Instance:
        """The instance when it has ended. Raises TimeoutError after `timeout` seconds."""
        clock = asyncio.get_running_loop().time
        end = clock() + timeout if timeout is not None else float("inf")
        pause = 0.02
        while not (found := await self.get(instance)).ended:
            left = end - clock()
            if left <= 0:
                raise TimeoutError(f"{found.instance_id} is {found.status} after {timeout} s")
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, 1.0)
        return found

    async def history(self, instance: UUID | str) -> History:
        """An instance with its steps, their attempts, and the nodes of its graph."""
        response = await self._send("GET", f"/instances/{_segment(instance)}/history")
        return _read(History, response)

    async def list(
        self,
        *,
        workflow: str | None = None,
        status: Status | None = None,
        label: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
        cursor: UUID | str | None = None,
    ) -> InstancePage:
        """A page of instances, newest first."""
        given = {
            "workflow": workflow,
            "status": status,
            "label": label,
            "since": since.isoformat() if since else None,
            "limit": str(limit),
            "cursor": str(cursor) if cursor else None,
        }
        params = {name: value for name, value in given.items() if value is not None}
        response = await self._send("GET", "/instances", params=params)
        return _read(InstancePage, response)

    async def list_all(
        self, *, workflow: str | None = None, status: Status | None = None, label: str | None = None
    ) -> AsyncIterator[InstanceSummary]:
        """Every instance that fits, newest first, page by page."""
        cursor: UUID | None = None
        while True:
            page = await self.list(workflow=workflow, status=status, label=label, cursor=cursor)
            for instance in page.instances:
                yield instance
            if (cursor := page.next_cursor) is None:
                return

    async def cancel(self, instance: UUID | str, reason: str | None = None) -> Instance:
        """End a live instance; one that has ended is answered as it is."""
        path = f"/instances/{_segment(instance)}/cancel"
        response = await self._send("POST", path, json={"reason": reason})
        return _read(Instance, response)

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Every workflow that can be started."""
        response = await self._send("GET", "/workflows")
        return _read(WorkflowList, response).workflows

    async def workflow(self, name: str) -> WorkflowInfo:
        """One workflow: version, schemas, steps, graph."""
        response = await self._send("GET", f"/workflows/{_segment(name)}")
        return _read(WorkflowInfo, response)

    async def export(self, workflow: str) -> str:
        """The workflow as SQL."""
        return (await self._send("GET", f"/export/{_segment(workflow)}.sql")).text

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **request)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as e:
            raise InvalidRequest(f"{self.base_url} is not the URL of a service: {e}") from e
        except UnicodeEncodeError as e:
            raise InvalidRequest(f"the request holds text that cannot be sent: {e}") from e
        except httpx.TransportError as e:
            reason = str(e) or type(e).__name__
            raise ServiceUnavailable(f"{self.base_url} does not answer: {reason}") from e
        if response.is_success:
            return response
        raise _error(response)


def _is_this_machine(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host == "localhost" or is_loopback(host)


def _read(model: type[Model], response: httpx.Response) -> Model:
    return model.model_validate_json(readable(response.text))


def _segment(value: UUID | str) -> str:
    return quote(str(value), safe="")


def _error(response: httpx.Response) -> PgflowsError:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        said = f"{response.request.url} answered {response.status_code}"
        return PgflowsError(f"{said}, but not as pgflows does")
    problem = response.json()
    data = {name: value for name, value in problem.items() if name not in _MEMBERS}
    cls = BY_TYPE.get(problem["type"])
    if cls is None:
        cls = ServiceUnavailable if response.status_code == 503 else PgflowsError
        data["problem"] = problem["type"].removeprefix(PROBLEM)
    return cls(problem["detail"], **data)
