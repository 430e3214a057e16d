"""schemathesis against a live server's OpenAPI document: no 5xx, no undocumented status, content type or shape."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
        pytest.param(GUARDED, "fuzzing", 1, 30, id="without a key"),
        pytest.param(LIMITED, "fuzzing", 1, 30, id="over the limit"),
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
