"""GET /workflows…, GET /export/{name}.sql, and what OpenAPI says of it all."""

from __future__ import annotations

from typing import Any

import httpx

from pgflows.http.app import create_app
from tests.http.conftest import settings_for
from tests.http.flows import make_app


async def test_workflows_are_listed_with_their_schemas_and_steps(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/workflows")).json()["workflows"]
    assert [w["name"] for w in listed] == ["process_order", "refused_order", "slow_order"]
    one = (await http.get("/workflows/process_order")).json()
    assert one == listed[0]
    assert set(one["input_schema"]["properties"]) == {"order_id", "amount"}
    assert set(one["output_schema"]["properties"]) == {"parcel"}
    assert [s["step"] for s in one["definition"]["steps"]] == ["charge", "ship"]
    assert one["definition"]["steps"][0]["retry"]["max_retries"] == 1


async def test_an_export_is_a_file_of_sql(http: httpx.AsyncClient) -> None:
    response = await http.get("/export/process_order.sql")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["content-disposition"] == 'attachment; filename="process_order.sql"'
    assert "df.http" in response.text


async def test_an_unknown_workflow_is_404(http: httpx.AsyncClient) -> None:
    assert (await http.get("/export/nothing.sql")).status_code == 404
    assert (await http.get("/workflows/nothing")).status_code == 404
    assert (await http.get("/workflows/a%00")).status_code == 422


def openapi() -> dict[str, Any]:
    return create_app(make_app(), settings_for(), dsn="postgresql://nowhere").openapi()


def test_openapi_has_an_operation_per_step_with_its_models() -> None:
    document = openapi()
    push = document["paths"]["/steps/charge"]["post"]
    body = push["requestBody"]["content"]["application/json"]["schema"]
    answer = push["responses"]["200"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Order"}
    assert answer == {"$ref": "#/components/schemas/Charged"}
    assert "X-Pgflows-Signature" in {p["name"] for p in push["parameters"]}
    assert "/steps/{step}" not in document["paths"]


def test_openapi_names_every_operation_once_and_every_error_as_a_problem() -> None:
    operations = [op for path in openapi()["paths"].values() for op in path.values()]
    ids = [op["operationId"] for op in operations]
    assert len(ids) == len(set(ids))
    for operation in operations:
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                assert list(response["content"]) == ["application/problem+json"], status
