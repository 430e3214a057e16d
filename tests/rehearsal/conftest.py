"""What the rehearsal needs: a Docker Engine with the project's images, and the cloud's services on loopback.

`infra/ci/rehearse.sh` starts the engine, builds the images and names the emulator; nothing here skips.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.cloud import storage

from pipelines.targets.docker import connect
from tests.bundles import make_bundle
from tests.fakes.secret_manager import FakeSecretManager
from tests.fakes.servers import free_port
from tests.rehearsal.container_run import ContainerCloudRun
from tests.rehearsal.executing_vertex import ExecutingVertex
from tests.rehearsal.images import Images

BUCKET = "proj-rehearsal"
API_KEY = "the-key-that-smoke-tests-send"
EMULATOR = "GCS_EMULATOR"
"""Path of the Cloud Storage emulator's command."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("engine")


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the Docker Engine; no engine is an error."""
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine: Any) -> Iterator[Images]:
    """The images as they were built."""
    found = Images(engine)
    yield found
    found.close()


def answers(url: str, seconds: float) -> None:
    """Wait until `url` answers 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(url, trust_env=False, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not answer within {seconds:g} s")
        time.sleep(0.2)


@pytest.fixture(scope="session")
def gcs(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Cloud Storage emulator with the photographs of tests/sample64; the environment points every client here."""
    command = os.environ.get(EMULATOR)
    if not command:
        raise RuntimeError(f"{EMULATOR} does not name the emulator: run this through `make rehearse`")
    port = free_port()
    log = (tmp_path_factory.mktemp("gcs") / "log").open("wb")
    arguments = [command, "start", "--host", "127.0.0.1", "--port", str(port), "--default-bucket", BUCKET, "-M", "-q"]
    process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    answers(f"{url}/storage/v1/b/{BUCKET}", 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        bucket = storage.Client().bucket(BUCKET)
        for path in sorted(sample_dir.glob("*.parquet")):
            bucket.blob(f"data/sample/{path.name}").upload_from_filename(str(path), checksum="crc32c")
        yield url
    process.terminate()
    process.wait(20)
    log.close()


@pytest.fixture(scope="session")
def mlflow_starting(engine: Any) -> Iterator[str]:
    """Where the project's MLflow image, as a server over HTTP, will answer: it starts while other things do."""
    port = free_port()
    container = engine.containers.run(
        "ai-product-photo-detector/mlflow:dev",
        ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        detach=True,
        network_mode="host",
        environment={"MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}"},
        read_only=True,
        tmpfs={"/tmp": "", "/mlflow": "uid=10001,gid=10001"},
        cap_drop=["ALL"],
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        container.remove(force=True)


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_starting: str) -> str:
    """The MLflow server, which answers."""
    answers(f"{mlflow_starting}/health", 180)
    return mlflow_starting


@pytest.fixture(scope="session")
def vertex(gcs: str, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutingVertex]:
    """Vertex AI that executes what is submitted."""
    fake = ExecutingVertex(tmp_path_factory.mktemp("vertex"), images)
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def cloud_run(engine: Any, gcs: str, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Cloud Run with the service as Terraform leaves it: one revision, here on a toy model, with all traffic."""
    bundle = make_bundle(tmp_path_factory.mktemp("first") / "bundle")
    bucket = storage.Client().bucket(BUCKET)
    for path in bundle.rglob("*"):
        if path.is_file():
            bucket.blob(f"first/{path.relative_to(bundle).as_posix()}").upload_from_filename(str(path))
    environment = {"MODEL_URI": f"gs://{BUCKET}/first", "MODEL_VERSION": "first", "TRUSTED_PROXIES": "1"}
    environment |= {"API_KEYS": f"{API_KEY},another-key-of-decent-length", "REQUIRE_AUTH": "true"}
    fake = ContainerCloudRun(engine, images, {"STORAGE_EMULATOR_HOST": gcs}, images.pinned("serving"), environment)
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def secrets() -> Iterator[FakeSecretManager]:
    """Secret Manager with the service's keys, as Terraform has them."""
    fake = FakeSecretManager({"projects/proj/secrets/aidetect-api-keys": f"{API_KEY},another-key-of-decent-length"})
    yield fake
    fake.close()


class Started:
    """Image ids of the containers that the engine made, in order."""

    def __init__(self, client: Any) -> None:
        self._events = client.events(decode=True, filters={"type": "container", "event": "create"})
        self.images: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for event in self._events:
            self.images.append(event["from"])

    def close(self) -> None:
        self._events.close()


@pytest.fixture
def started(engine: Any) -> Iterator[Started]:
    """What containers a test made, by the engine's own account."""
    watcher = Started(engine)
    yield watcher
    watcher.close()
