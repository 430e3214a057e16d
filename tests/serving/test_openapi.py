"""The API's description is whole: generators of clients drop no operation, and what it declares is what is sent."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.detector.image import ImageLimits
from serving.http.problems import STATUS
from serving.settings import Settings
from tests.bundles import jpeg


@pytest.fixture(scope="module")
def limited(toy_bundle: Path) -> Iterator[TestClient]:
    settings = Settings(model_uri=str(toy_bundle), slots=1, rate_limit_predict="1/minute", max_batch_files=4)
    with TestClient(create_app(settings)) as made:
        yield made


@pytest.fixture(scope="module")
def document(limited: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = limited.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_operation_can_be_generated(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names)) > 35
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert document["servers"] == [{"url": "/"}]
    for path, _, operation in operations(document):
        parameters = operation.get("parameters", [])
        in_path = {p["name"] for p in parameters if p["in"] == "path"}
        # generators drop an operation whose path may have no value
        assert in_path == set(re.findall(r"{(\w+)}", path))
        for parameter in parameters:
            assert parameter["in"] != "path" or parameter["required"]
            assert parameter["schema"]["type"] == ("boolean" if parameter["in"] == "query" else "string"), parameter
        assert any(status.startswith("2") for status in operation["responses"])


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    used = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert used == set(document["components"]["schemas"])


def test_headers_are_declared_where_they_are_sent(limited: TestClient, document: dict[str, Any]) -> None:
    for _, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            declared = set(answer["headers"])
            assert "X-Request-ID" in declared
            assert ("Retry-After" in declared) == (status in ("429", "503"))
            assert ("X-RateLimit-Reset" in declared) == (status == "429" or (method == "post" and status[0] == "2"))
    answers = [limited.post("/predict", files={"file": jpeg(200)}) for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 429]
    for answer in answers:
        declared = document["paths"]["/predict"]["post"]["responses"][str(answer.status_code)]["headers"]
        assert set(map(str.lower, declared)) <= set(answer.headers)


def test_caps_are_told_as_they_are_set(limited: TestClient, document: dict[str, Any]) -> None:
    form = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["files"]["maxItems"] == 4
    assert limited.get("/").json()["limits"] == {
        "max_file_bytes": 10 * 2**20,
        "max_batch_files": 4,
        "max_batch_bytes": 50 * 2**20,
        "url_fetch": False,
    }
    examples = document["paths"]["/predict"]["post"]["responses"]["422"]["content"]["application/problem+json"]
    said = examples["examples"]["too_many_pixels"]["value"]["detail"]
    assert f"{ImageLimits().max_pixels:,} pixels" in said
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            for name, example in answer["content"].get("application/problem+json", {}).get("examples", {}).items():
                assert example["value"]["status"] == STATUS[name] == int(status)


@pytest.mark.system  # brings the generators from their registries
@pytest.mark.no_cover
def test_generators_take_every_operation(document: dict[str, Any], tmp_path: Path) -> None:
    spec = tmp_path / "openapi.json"
    spec.write_text(json.dumps(document))
    count = len(list(operations(document)))
    uv = shutil.which("uv") or str(Path(".venv/bin/uv").resolve())
    python = [uv, "tool", "run", "openapi-python-client==0.28.3", "generate", "--path", str(spec)]
    typescript = ["npx", "--yes", "openapi-typescript@7.13.0", str(spec), "--output", str(tmp_path / "api.d.ts")]
    for command in ([*python, "--output-path", str(tmp_path / "client")], typescript):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
    modules = [p for p in (tmp_path / "client").rglob("api/*/*.py") if p.name != "__init__.py"]
    assert len(modules) == count
    assert (tmp_path / "api.d.ts").read_text().count('operations["') == count
