"""Register and resolve against a real `mlflow server` over HTTP, as the stages' containers do it."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from components.artifacts.model_version import CHALLENGER, CHAMPION
from components.platform.registry import Registry, list_models
from components.platform.tracking import fetch_recorded, record
from serving.detector.bundle import RELEASE, read_manifest, verify
from serving.platform import cloud_storage
from serving.platform.errors import ModelNotFoundError, StageError
from serving.registry import resolve
from tests.bundles import make_bundle
from tests.fakes.servers import free_port
from tests.releases import RELEASE_FILES, make_context, registered
from tests.serving.processes import environment
from tests.untraced import untraced


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[str]:
    """Address of a server with an empty registry; its artifacts go through it too."""
    folder, port = tmp_path_factory.mktemp("mlflow-server"), free_port()
    shutil.copy(migrated, folder / "mlflow.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "a")]
    url = f"http://127.0.0.1:{port}"
    told = untraced({**environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})  # as in the image
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=told, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        # its workers as well
        for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            member.kill()
        process.wait(20)


@pytest.mark.system
def test_a_version_over_http_is_whole_found_and_served(
    server: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path, tracking_uri=server, artifact_root="")
    first = registered(tmp_path / "1", toy_bundle, context)
    assert (first.version, first.tracking_uri) == ("1", server)
    assert registered(tmp_path / "again", toy_bundle, context) == first
    second = registered(tmp_path / "2", make_bundle(tmp_path / "other", seed=5), context)
    registry = Registry(server, context.model_name)
    registry.point(CHAMPION, "1")
    assert {row.version: row.aliases for row in list_models(server, context.model_name)} == {
        "1": (CHAMPION,),
        second.version: (CHALLENGER,),
    }
    for name, most in (("MOST_FILES", 3), ("MOST_BYTES", 1_000)):
        with (
            monkeypatch.context() as bounded,
            pytest.raises(ModelNotFoundError, match=r"version 1 .* more than a model"),
        ):
            bounded.setattr(cloud_storage, name, most)
            resolve(f"models:/{context.model_name}@{CHAMPION}", tmp_path / "cache", server)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    found = resolve(f"models:/{context.model_name}@{CHAMPION}", tmp_path / "cache", server)
    assert found.version == "1"
    assert verify(found.folder).digest == read_manifest(toy_bundle).digest
    assert {path.name for path in (found.folder / RELEASE).iterdir()} == RELEASE_FILES
    (tmp_path / "note.txt").write_text("kept")
    record(context, metrics={"evaluate/accuracy": 0.9}, files=[tmp_path / "note.txt"], folder="verdict")
    fetched = fetch_recorded(server, context.experiment, context.run_id, "verdict", tmp_path / "fetched")
    assert (fetched / "note.txt").read_text() == "kept"
    with pytest.raises(StageError, match="holds no evaluation of run nobody"):
        fetch_recorded(server, context.experiment, "nobody", "evaluation", tmp_path / "fetched")
