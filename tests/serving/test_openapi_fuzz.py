"""schemathesis against a live server's OpenAPI document: no 5xx, no undocumented status, content type or shape."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.serving.processes import serve
from tests.untraced import untraced

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

OPEN = {"QUEUE_SIZE": "64"}
GUARDED = {
    "API_KEYS": "a-key-that-nobody-sends",
    "REQUIRE_AUTH": "true",
}
LIMITED = {"RATE_LIMIT_ENABLED": "true", **{f"RATE_LIMIT_{name}": "1/hour" for name in ("PREDICT", "BATCH", "EXPLAIN")}}


@pytest.mark.parametrize(
    ("env", "phases", "examples", "at_least"),
    [
        pytest.param(OPEN, "examples,coverage,fuzzing", 5, 300, id="open"),
        # what each operation answers then is asked below as well
        pytest.param(GUARDED, "fuzzing", 1, 30, id="without a key", marks=pytest.mark.system),
        pytest.param(LIMITED, "fuzzing", 1, 30, id="over the limit", marks=pytest.mark.system),
    ],
)
def test_the_server_answers_as_its_openapi_document_says(
    toy_bundle: Path, tmp_path: Path, env: dict[str, str], phases: str, examples: int, at_least: int
) -> None:
    with serve(toy_bundle, tmp_path / "log", LOG_LEVEL="warning", **env) as server:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run"]
        command += [f"{server.url}/openapi.json", "--checks", CHECKS, "--phases", phases]
        command += ["--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--no-color"]
        command += ["--suppress-health-check", "all", "--continue-on-failure", "--request-timeout", "20"]
        # its own folder: schemathesis reads configuration files and writes caches where it stands
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=untraced())

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    (tested,) = re.findall(r"(\d+) generated, \1 passed", done.stdout)
    assert int(tested) >= at_least


@pytest.mark.parametrize(("env", "refusal"), [(GUARDED, 401), (LIMITED, 429)], ids=["without a key", "over the limit"])
def test_who_may_not_ask_is_told_as_each_operation_declares(
    toy_bundle: Path, env: dict[str, str], refusal: int
) -> None:
    given: dict[str, Any] = {name.lower(): value for name, value in env.items()}
    refused = []
    with TestClient(create_app(Settings(model_uri=str(toy_bundle), slots=1, **given))) as client:
        document = client.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                for _ in range(2):
                    answer = client.request(method, re.sub(r"{\w+}", "x", path), files={"file": b"no photo"})
                declared = operation["responses"].get(str(answer.status_code))
                assert declared is not None, (method, path, answer.status_code)
                kinds = declared.get("content", {})
                assert not kinds or answer.headers["content-type"].partition(";")[0] in kinds, (method, path)
                if answer.status_code == refusal:
                    refused.append(path)
                    if method != "head":
                        assert answer.json()["status"] == refusal
    # without a key it is soon too many tries without one, which is declared, too
    assert {"/predict", "/predict/batch", "/predict/explain"} <= set(refused)
