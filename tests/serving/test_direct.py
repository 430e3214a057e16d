"""Direct routes answer as FastAPI's own do, and refuse endpoints that need its injection."""

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from starlette.testclient import TestClient

from serving.http.routes.direct import DirectRoute


async def echo(request: Request) -> Response:
    if request.query_params:
        raise HTTPException(418, "no tea")
    return Response(await request.body(), 201)


def test_the_request_goes_in_and_the_response_comes_out_under_any_prefix() -> None:
    router = APIRouter(route_class=DirectRoute)
    router.post("/echo")(echo)
    app = FastAPI()
    for prefix in ("", "/v1"):
        app.include_router(router, prefix=prefix)
    client = TestClient(app)
    for path in ("/echo", "/v1/echo"):
        answer = client.post(path, content=b"body")
        assert (answer.status_code, answer.content) == (201, b"body")
        assert client.post(path, params={"tea": 1}).status_code == 418
        assert client.get(path).status_code == 405
        assert path in client.get("/openapi.json").json()["paths"]


async def with_number(request: Request, number: int) -> Response:
    return Response(str(number))


@pytest.mark.parametrize("options", [{"endpoint": with_number}, {"endpoint": echo, "dependencies": [Depends(echo)]}])
def test_what_needs_injection_is_refused_when_it_is_declared(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="/number: a DirectRoute's endpoint takes `request` and nothing else"):
        APIRouter(route_class=DirectRoute).add_api_route("/number", **options)
