"""The server as a process: what it refuses to start with, in one line, and what it is told by Vertex AI."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from serving.http.uploads import BodyBudget
from serving.settings import ENVELOPE_BYTES, Settings, as_base64
from tests.bundles import jpeg, make_bundle
from tests.serving.processes import HANG_S, environment, free_port, load_refused, start_refused

BRIGHT = jpeg(205, (64, 64))


def sealed_files() -> list[str]:
    return ["manifest.json", "model.onnx", "head.safetensors", "weights.safetensors", "reference.json", "MODEL_CARD.md"]


@pytest.mark.parametrize("name", [*sealed_files(), "golden"])
def test_one_flipped_byte_refuses_the_start(toy_bundle: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(toy_bundle, tmp_path / "copy")
    victim = copy / name if name != "golden" else min((copy / "golden").iterdir())
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    refused = start_refused if name == "model.onnx" else load_refused
    code, error = refused(MODEL_URI=str(copy), PORT=str(free_port()))
    assert code == 1
    assert error.startswith(f"error: {victim}")
    assert error.count("\n") == 1


def test_an_unreproducible_bundle_is_refused_with_the_numbers(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    other = make_bundle(tmp_path / "other", scale=3.0)
    shutil.copy(other / "model.onnx", folder / "model.onnx")
    from serving.detector import bundle

    manifest = bundle.read_manifest(folder)
    (folder / "manifest.json").unlink()
    bundle.seal(folder, **{k: v for k, v in dict(manifest).items() if k not in ("files", "schema_version")})
    code, error = load_refused(MODEL_URI=str(folder), PORT=str(free_port()))
    assert code == 1
    assert "golden example not reproduced" in error
    recorded = manifest.golden[0].probability
    assert f"{recorded:.6f}" in error


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "MODEL_URI is not set"),
        ({"MODEL_URI": "/nowhere/at/all"}, "no such folder"),
        ({"MODEL_URI": "x", "PORT": "eighty"}, "PORT"),
        ({"MODEL_URI": "x", "SHADOW_SAMPLE": "2"}, "SHADOW_SAMPLE"),
        ({"MODEL_URI": "models:/nobody@champion", "MLFLOW_TRACKING_URI": "sqlite:////nowhere/x.db"}, "nobody"),
    ],
)
def test_a_wrong_setting_is_one_line(env: dict[str, str], words: str, tmp_path: Path) -> None:
    code, error = (load_refused if env else start_refused)(**{"PORT": str(free_port()), **env})
    assert code == 1
    assert words in error
    assert error.startswith("error: ")


def test_settings_that_cannot_work_together_are_one_line(toy_bundle: Path) -> None:
    for env, words in (
        ({"REQUIRE_AUTH": "true"}, "API_KEYS"),
        ({"AIP_PREDICT_ROUTE": "/predict"}, "AIP_PREDICT_ROUTE"),
        # such a batch would be 503 for ever
        ({"MAX_BATCH_BYTES": "100000000"}, "MAX_BUFFERED_BYTES: "),
    ):
        code, error = start_refused(MODEL_URI=str(toy_bundle), PORT=str(free_port()), **env)
        assert code == 1
        assert words in error
        assert error.count("\n") == 1


def test_what_may_be_sent_can_be_received() -> None:
    mib = 2**20
    Settings(max_batch_bytes=59 * mib)
    wrongs: tuple[dict[str, Any], ...] = (
        {"max_batch_bytes": 61 * mib},
        {"max_file_bytes": 81 * mib},
        {"max_buffered_bytes": 4000},
        {"max_batch_bytes": 1, "max_file_bytes": 1, "max_buffered_bytes": 100_000},
    )
    for wrong in wrongs:
        with pytest.raises(ValidationError, match=r"raise it to (\d+) or lower them") as caught:
            Settings(**wrong)
        (told,) = re.findall(r"raise it to (\d+)", str(caught.value))
        enough = int(told)
        Settings(**wrong | {"max_buffered_bytes": enough})
    # the largest that the settings allow, as it trickles in
    with BodyBudget(enough).account("alone") as body:
        for _ in range(as_base64(1) + ENVELOPE_BYTES):
            body.take(1)


def test_a_port_in_use_is_one_line(toy_bundle: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        code, error = load_refused(MODEL_URI=str(toy_bundle), PORT=str(holder.getsockname()[1]))
    assert code == 1
    assert "choose another PORT" in error


def test_vertex_names_port_and_routes(toy_bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    env = {"AIP_HTTP_PORT": str(port), "AIP_PREDICT_ROUTE": "/ep:predict", "AIP_HEALTH_ROUTE": "/ep/health"}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"], env=environment(AIP_STORAGE_URI=str(toy_bundle), PORT="1", **env)
    )
    try:
        deadline = time.monotonic() + HANG_S
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/ep/health").status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        answer = httpx.post(f"http://127.0.0.1:{port}/ep:predict", json={"instances": [{"b64": "x"}]})
        assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_request")
        assert "instances.0.b64" in answer.json()["detail"]
    finally:
        process.terminate()
        assert process.wait(HANG_S) == 0


def test_importing_the_application_loads_nothing_heavy() -> None:
    code = "import json, sys, serving.app; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"torch", "captum", "scipy.stats", "mlflow", "google.cloud.storage", "kfp", "timm", "pandas"}
