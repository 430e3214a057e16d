"""The user routes through the application: what they answer, and that every dialect answers the same."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from serving.app import create_app
from serving.settings import Settings
from tests.bundles import jpeg, make_bundle
from tests.serving.asking import BRIGHT, DARK, one

NAME = "ai-product-photo-detector"


def many(client: TestClient, path: str, images: list[bytes]) -> Response:
    return client.post(path, files=[("files", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(images)])


def test_predict_answers_with_exactly_the_promised_fields(client: TestClient) -> None:
    answer = one(client, "/predict", BRIGHT)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {
        "prediction",
        "probability",
        "confidence",
        "inference_time_ms",
        "model_version",
        "threshold",
        "request_id",
        "decision",
        "reasons",
        "domain",
        "provenance",
        "image_sha256",
        "record",
    }
    assert body["prediction"] == "ai_generated"
    assert body["probability"] >= body["threshold"]
    assert body["inference_time_ms"] > 0
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["model_version"] == client.get("/model").json()["version"]


def test_a_dark_picture_gets_the_other_verdict(client: TestClient) -> None:
    assert one(client, "/predict", DARK).json()["prediction"] == "real"


def test_v1_is_the_same_route(client: TestClient) -> None:
    first, second = (one(client, path, DARK).json() for path in ("/predict", "/v1/predict"))
    for volatile in ("request_id", "inference_time_ms"):
        first.pop(volatile), second.pop(volatile)
    assert first == second


def test_every_user_route_stands_under_v1(client: TestClient) -> None:
    paths = set(client.get("/openapi.json").json()["paths"])
    outside = {p for p in paths if not p.startswith(("/v1", "/v2", "/vertex"))}
    assert {f"/v1{p}" for p in outside} <= paths


def v2_json(client: TestClient, images: list[bytes]) -> list[float]:
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "data": [base64.b64encode(i).decode() for i in images],
    }
    answer = client.post(f"/v2/models/{NAME}/infer", json={"id": "a", "inputs": [tensor]}).json()
    assert answer["id"] == "a"
    return next(t["data"] for t in answer["outputs"] if t["name"] == "probability")


def v2_binary(client: TestClient, images: list[bytes]) -> list[float]:
    raw = b"".join(struct.pack("<I", len(i)) + i for i in images)
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(raw)},
    }
    wanted = [{"name": "probability", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer", content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    tail = answer.content[length:]
    assert output["parameters"]["binary_data_size"] == len(tail)
    return [float(value) for value in np.frombuffer(tail, "<f8")]


def vertex(client: TestClient, images: list[bytes]) -> list[float]:
    body = {"instances": [{"b64": base64.b64encode(i).decode()} for i in images]}
    return [p["probability"] for p in client.post("/vertex/predict", json=body).json()["predictions"]]


def test_same_image_same_probability_through_every_dialect_and_batch_size(client: TestClient) -> None:
    assert_one_answer(client)


def test_so_it_is_with_a_graph_that_takes_one_image_a_call(tmp_path: Path, client: TestClient) -> None:
    settings = Settings(model_uri=str(make_bundle(tmp_path / "single", batch=1)), rate_limit_enabled=False, slots=2)
    with TestClient(create_app(settings)) as single:
        assert_one_answer(single)
        verdicts = [one(c, "/predict", BRIGHT).json()["probability"] for c in (single, client)]
    assert verdicts[0] == pytest.approx(verdicts[1], abs=1e-6)


def assert_one_answer(client: TestClient) -> None:
    images = [jpeg(level, (64 + level, 80), seed=level) for level in range(30, 230, 20)]
    expected = [one(client, "/predict", data).json()["probability"] for data in images]
    assert len(set(expected)) == 10
    ten = [item["probability"] for item in many(client, "/predict/batch", images).json()["results"]]
    single = [many(client, "/predict/batch", [data]).json()["results"][0]["probability"] for data in images]
    explained = [one(client, "/predict/explain", data).json()["probability"] for data in images]
    for found in (ten, single, explained, vertex(client, images), v2_json(client, images), v2_binary(client, images)):
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_batch_has_a_verdict_or_an_error_for_each_file(client: TestClient) -> None:
    too_large = b"\xff\xd8\xff" + bytes(11 * 2**20)
    body = many(client, "/predict/batch", [BRIGHT, b"plain text", DARK, too_large]).json()
    assert (body["total"], body["successful"], body["failed"]) == (4, 2, 2)
    assert [r["prediction"] for r in body["results"]] == ["ai_generated", None, "real", None]
    assert [r["error"] and r["error"]["reason"] for r in body["results"]] == [
        None,
        "unsupported_type",
        None,
        "file_too_large",
    ]
    assert [r["filename"] for r in body["results"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert body["total_inference_time_ms"] == pytest.approx(
        sum(r["inference_time_ms"] or 0 for r in body["results"]), abs=0.01
    )


@pytest.mark.parametrize("count", [0, 11])
def test_a_batch_of_too_few_or_too_many_is_refused(client: TestClient, count: int) -> None:
    answer = many(client, "/predict/batch", [DARK] * count) if count else client.post("/predict/batch", data={"a": "b"})
    assert answer.status_code in (415, 422)
    answer = client.post(
        "/predict/batch", files=[("files", (f"{i}", DARK)) for i in range(count)] or [("other", ("o", DARK))]
    )
    assert answer.status_code == 422
    assert answer.json()["reason"] == ("too_many_files" if count else "missing_file")


BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason", "words"),
    [
        (PART + DARK + b"\r\n--b--\r\n", {"content-type": "text/plain"}, 415, "unsupported_media_type", "file"),
        (DARK, {"content-type": "image/jpeg"}, 415, "unsupported_media_type", "multipart"),
        (b"", {}, 415, "unsupported_media_type", "multipart"),
        (b"", BOUNDARY, 400, "malformed_request", "closing boundary"),
        (b"no boundary at all", BOUNDARY, 400, "malformed_request", "damaged"),
        (PART + DARK, BOUNDARY, 400, "malformed_request", "closing boundary"),
        (PART + DARK + b"\r\n--b--\r\n", {"content-type": "multipart/form-data"}, 400, "malformed_request", "boundary"),
        (PART.replace(b'"file"', b'"image"') + DARK + b"\r\n--b--\r\n", BOUNDARY, 422, "missing_file", "image"),
        (b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", BOUNDARY, 422, "missing_file", "without a name"),
        (PART + DARK + b"\r\n" + PART + DARK + b"\r\n--b--\r\n", BOUNDARY, 422, "too_many_files", "1 file"),
        (PART + b"\r\n--b--\r\n", BOUNDARY, 422, "empty", "empty"),
        ((b"--b\r\nX: y\r\n\r\nz\r\n" * 80) + b"--b--\r\n", BOUNDARY, 400, "malformed_request", "parts"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/v1/predict/explain"])
def test_a_wrong_body_is_told_what_is_wrong(
    client: TestClient, path: str, content: bytes, headers: dict[str, str], status: int, reason: str, words: str
) -> None:
    answer = client.post(path, content=content, headers=headers)
    body = answer.json()
    assert (answer.status_code, body["reason"]) == (status, reason)
    assert words in body["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]


def test_other_fields_of_the_form_are_ignored(client: TestClient) -> None:
    answer = client.post("/predict", files={"file": ("x", BRIGHT)}, data={"comment": "from the shop", "sku": "1"})
    assert answer.status_code == 200


def test_a_file_over_the_limit_is_refused_whatever_the_length_says(client: TestClient) -> None:
    answer = one(client, "/predict", BRIGHT + bytes(10 * 2**20))
    assert (answer.status_code, answer.json()["status"]) == (413, 413)


def test_the_frameworks_own_errors_have_the_same_shape(client: TestClient) -> None:
    for answer, status in ((client.get("/nope"), 404), (client.get("/predict"), 405), (client.put("/health"), 405)):
        body = answer.json()
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "reason", "request_id"} <= set(body)
        assert body["request_id"] == answer.headers["x-request-id"]


def test_compare_needs_a_challenger(client: TestClient) -> None:
    answer = one(client, "/predict/compare", DARK)
    assert (answer.status_code, answer.json()["reason"]) == (409, "no_challenger")


def test_the_description_is_whole(client: TestClient) -> None:
    text = client.get("/openapi.json").text
    document = json.loads(text)
    schemas = document["components"]["schemas"]
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas
    operations = [o for path in document["paths"].values() for o in path.values()]
    assert len({o["operationId"] for o in operations}) == len(operations)
    for operation in operations:
        assert {"200", "401", "413", "429", "500"} <= set(operation["responses"])


def test_what_the_service_says_of_itself(client: TestClient) -> None:
    assert client.get("/privacy").json()["images"].startswith("Images are judged in memory")
    assert client.get("/").json()["documentation"] == "/docs"
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["model"]["loaded"]
    assert health["queue"] == {"waiting": 0, "size": 8, "slots": 2}
    model = client.get("/model").json()
    assert model["input_size"] == 32
    assert model["architecture"] == "toy"
    assert model["verdict"] is None
    assert model["manifest"]["files"]["model.onnx"]
    for probe in ("/healthz", "/readyz", "/startup", "/v2/health/live", "/v2/health/ready", "/vertex/health"):
        assert client.get(probe).status_code == 200


def test_bodies_together_may_not_fill_the_memory(toy_bundle: Path) -> None:
    most = 2**16
    settings = Settings(
        model_uri=str(toy_bundle),
        rate_limit_enabled=False,
        slots=1,
        max_file_bytes=most,
        max_batch_bytes=most,
        max_buffered_bytes=5 * most,
    )
    app = create_app(settings)
    large = jpeg(200, (32, 32)) + bytes(most // 2)
    with TestClient(app) as small:
        budget = app.state.service.budget
        # two others whose bodies are still coming: each holds what it may
        with budget.account("one") as first, budget.account("other") as second:
            first.take(5 * most // 2)
            second.take(2 * most)
            assert one(small, "/predict", jpeg(200, (32, 32))).status_code == 200
            answer = one(small, "/predict", large)
            assert (answer.status_code, answer.json()["reason"]) == (503, "overloaded")
            assert answer.headers["retry-after"]
        # bodies that ended, and a refused one, gave their bytes back
        for _ in range(4):
            assert one(small, "/predict", large).status_code == 200


TENSOR: dict[str, Any] = {
    "name": "image",
    "datatype": "BYTES",
    "shape": [1],
    "data": [base64.b64encode(BRIGHT).decode()],
}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"name": "pixels"}, 422, "pixels"),
        ({"datatype": "FP32"}, 422, "FP32"),
        ({"shape": [2]}, 422, "shape"),
        ({"data": [1]}, 422, "base64"),
        ({"data": ["not base64!"]}, 422, "inputs.0.data.0"),
        ({"shape": [0], "data": []}, 422, "at least one"),
        ({"data": [base64.b64encode(b"text").decode()]}, 415, "image 0"),
        ({"shape": [11], "data": TENSOR["data"] * 11}, 422, "at most 10"),
        ({"parameters": {"binary_data_size": 5}}, 422, "5 bytes announced"),
    ],
)
def test_a_wrong_tensor_is_told_what_is_wrong(
    client: TestClient, change: dict[str, object], status: int, words: str
) -> None:
    answer = client.post(f"/v2/models/{NAME}/infer", json={"inputs": [{**TENSOR, **change}]})
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert answer.json()["error"] == answer.json()["detail"]


def test_v2_knows_its_model_and_no_other(client: TestClient) -> None:
    served = client.get(f"/v2/models/{NAME}").json()
    assert [t["datatype"] for t in served["inputs"]] == ["BYTES"]
    assert client.get(f"/v2/models/{NAME}/versions/{served['versions'][0]}/ready").json()["ready"]
    for path in ("/v2/models/other", f"/v2/models/{NAME}/versions/99", f"/v2/models/{NAME}/versions/99/ready"):
        assert client.get(path).status_code == 404
    assert client.post("/v2/models/other/infer", json={"inputs": [TENSOR]}).status_code == 404
