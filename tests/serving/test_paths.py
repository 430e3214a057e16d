"""One spelling of a path is one route with its limits: what else looks like it is 404 before anything is done."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.routing import Match
from starlette.testclient import TestClient

from serving.app import create_app
from serving.http.paths import Paths
from serving.served import Served
from serving.settings import Settings
from tests.bundles import jpeg

KEY = "a-key-of-decent-length"
VERTEX = "/v1/endpoints/123/deployedModels/456"

Client = Callable[..., TestClient]


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    opened: list[TestClient] = []

    def make(**settings: Any) -> TestClient:
        if "api_keys" in settings:
            settings["api_keys"] = SecretStr(str(settings["api_keys"]))
        app = create_app(Settings(**{"model_uri": "unused", **settings}), served)
        opened.append(TestClient(app, raise_server_exceptions=False, follow_redirects=False).__enter__())
        return opened[-1]

    yield make
    for found in opened:
        found.__exit__(None, None, None)


def upload() -> dict[str, tuple[str, bytes, str]]:
    return {"file": ("x.jpg", jpeg(200), "image/jpeg")}


NOT_SERVED = [
    "/predict%0a",
    "/predict%0d%0a",
    "/predict%00",
    "/predict%20",
    "/%0apredict",
    "//predict",
    "/predict//",
    "/%2e/predict",
    "/PREDICT",
    "/Predict",
    "/predict;x=1",
    "/predict%3Bx",
    "/predict%3Fx",
    "/predict.json",
    "/v1//predict",
    "/v2/predict",
    "/v1/v1/predict",
    "/v1/%2e%2e/predict",
    "/predict%EF%BC%8F",
    "/predict%ff",
    "/v2/models/m/infer%0a",
    "/v2/models/a%2Fb/infer",
    "/no/such/route",
]


@pytest.mark.parametrize("path", NOT_SERVED)
def test_what_no_route_serves_is_404_before_anything_else(client: Client, path: str) -> None:
    guarded = client(api_keys=KEY, require_auth=True, rate_limit_predict="1/minute")
    for _ in range(3):
        answer = guarded.post(f"http://testserver{path}", content=b"never read")
        assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")
        assert len(answer.content) < 1000


@pytest.mark.parametrize("path", ["/predict", "/predict/", "/v1/predict", "/v1/predict/", "/predict%2F"])
def test_every_spelling_that_is_served_counts_in_the_same_bucket(client: Client, path: str) -> None:
    limited = client(rate_limit_predict="2/minute")
    assert limited.post("/predict", files=upload()).status_code == 200
    assert [limited.post(path, files=upload()).status_code for _ in range(2)] == [200, 429]


def test_head_is_answered_wherever_get_is_and_a_slash_at_the_end_makes_no_difference(client: Client) -> None:
    open_to_all = client()
    document = open_to_all.get("/openapi.json").json()
    name = open_to_all.get("/model").json()["name"]
    version = open_to_all.get("/model").json()["version"]
    tried = 0
    for template, operations in document["paths"].items():
        path = template.replace("{name}", name).replace("{version}", version)
        if "get" not in operations:
            refused = open_to_all.head(path)
            assert refused.status_code == 405
            assert refused.headers["allow"] == "POST"
            continue
        get = open_to_all.get(path)
        head = open_to_all.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/":
            slashed = open_to_all.get(path.rstrip("/") + "/")
            bare = open_to_all.get(path.rstrip("/"))
            assert slashed.status_code == bare.status_code == get.status_code
        tried += 1
    assert tried > 20


def test_a_method_that_is_not_possible_is_told_which_are(client: Client) -> None:
    answer = client().delete("/health")
    assert (answer.status_code, answer.json()["reason"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("prefix", ["", "/detector"], ids=["taken off by the proxy", "left by the proxy"])
def test_behind_a_root_path_everything_is_as_without(client: Client, prefix: str) -> None:
    behind = client(root_path="/detector/", rate_limit_predict="2/minute", api_keys=KEY, require_auth=True)

    def ask(path: str) -> int:
        return behind.post(prefix + path, files=upload(), headers={"X-API-Key": KEY}).status_code

    assert behind.get(f"{prefix}/health").status_code == 200
    assert behind.get(f"{prefix}/health/").status_code == 200
    assert behind.get(f"{prefix}/model").status_code == 401
    assert behind.get("/detectorhealth").status_code == 404
    assert behind.get("/detector/detector/health").status_code == 404
    assert [ask("/predict"), ask("/v1/predict"), ask("/predict/")] == [200, 200, 429]
    document = behind.get(f"{prefix}/openapi.json").json()
    assert document["servers"] == [{"url": "/detector"}]
    assert "/predict" in document["paths"]
    assert "/detector/openapi.json" in behind.get(f"{prefix}/docs").text


def vertex_body(size: int) -> dict[str, object]:
    return {"instances": [{"b64": "A" * size}]}


def test_vertex_s_own_default_paths_have_the_rules_of_their_routes(client: Client) -> None:
    routes = {"aip_predict_route": f"{VERTEX}:predict", "aip_health_route": VERTEX}
    guarded = client(api_keys=KEY, require_auth=True, **routes)
    limited = client(rate_limit_batch="1/minute", rate_limit_predict="5/minute", **routes)
    on_vertex = client(aip_http_port=8080, rate_limit_batch="1/minute", rate_limit_predict="1/minute", **routes)

    assert guarded.get(VERTEX).status_code == 200, "a probe sends no key"
    assert guarded.post(f"{VERTEX}:predict", json=vertex_body(8)).status_code == 401
    # as large as any batch, not as the routes that take no image
    assert limited.post(f"{VERTEX}:predict", json=vertex_body(4_000_000)).status_code == 415
    assert limited.post(f"{VERTEX}:predict", json=vertex_body(8)).status_code == 429
    assert {on_vertex.post(f"{VERTEX}:predict", json=vertex_body(8)).status_code for _ in range(8)} == {415}


SPELLINGS = st.lists(
    st.sampled_from(["/", "predict", "v1", "v2", "models", "health", "infer", "batch", "\n", "%", ";", ".", "x", "ﬀ"]),
    max_size=8,
).map("".join)


@given(SPELLINGS)
def test_the_router_takes_no_path_that_is_not_found_here_and_all_that_is(spelling: str) -> None:
    path = "/" + spelling
    found, canonical = PATHS.find(path)
    if not found.exists:
        # what the router would make of it does not matter: it is never asked
        return
    scope = {"type": "http", "path": canonical, "method": min(found.methods & {"GET", "POST"}), "headers": []}
    assert any(route.matches(dict(scope))[0] is Match.FULL for route in APP.router.routes)


APP = create_app(Settings(model_uri="unused"))
PATHS = Paths(APP.routes)
