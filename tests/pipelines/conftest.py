"""A cloud on loopback: Vertex AI's pipelines, Cloud Storage, a Kubeflow server; and `aidetect` against them."""

import inspect
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse

import pytest

from pipelines.cli.app import run_app
from tests.fakes.gcs import FakeGcs
from tests.fakes.kubeflow import FakeKubeflow
from tests.fakes.loopback import LoopbackServer
from tests.fakes.vertex_pipelines import FakeVertexPipelines

DIGEST = "@sha256:" + "a1" * 32
IMAGES = [f"images.{name}=registry.example/{name}{DIGEST}" for name in ("train", "pipeline", "serving")]


@dataclass
class Ran:
    """What a verb came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its JSON."""
        return json.loads(self.out)


Aidetect = Callable[..., Ran]


@pytest.fixture(scope="session", autouse=True)
def _shallow_stack() -> Iterator[None]:
    """KFP asks for the whole stack at every setting of a task, only to name its caller in an error.

    In a test process that is half of a compilation's time: for each frame outside a file `inspect` looks through all
    modules that were ever loaded.
    """
    from kfp.dsl import pipeline_task

    quick = SimpleNamespace(**{**vars(inspect), "stack": lambda: [("", "", 0, "a setting")] * 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", quick)
        yield


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """Cloud Storage, where the client library looks for it."""
    fake = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    yield fake
    fake.close()


@pytest.fixture
def no_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """Submission asks Google who owns the bucket, at an address that no setting changes; the answer is only logged."""
    from google.cloud.aiplatform.utils import gcs_utils

    monkeypatch.setattr(gcs_utils, "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist", lambda **_: None)


@pytest.fixture
def cloud(gcs: FakeGcs, no_google: None) -> Iterator[FakeVertexPipelines]:
    """Vertex AI, whose stages leave their artifacts in Cloud Storage."""
    fake = FakeVertexPipelines(gcs=gcs)
    yield fake
    fake.close()


@pytest.fixture
def kubeflow() -> Iterator[FakeKubeflow]:
    """A Kubeflow Pipelines server."""
    fake = FakeKubeflow()
    yield fake
    fake.close()


def vertex_sets(folder: Path, cloud: FakeVertexPipelines) -> list[str]:
    """`--set` of everything that the production profile leaves to its owner."""
    return [
        *IMAGES,
        f"paths.workspace={folder / 'workspace'}",
        "vertex.project=proj",
        "vertex.region=europe-west1",
        "vertex.bucket=gs://bkt",
        "vertex.service_account=pipeline@proj.iam.gserviceaccount.com",
        "vertex.network=projects/1/global/networks/n",
        "vertex.labels={team: trust}",
        f"vertex.api_endpoint={cloud.url}",
        f"vertex.quota_endpoint={cloud.url}",
        "vertex.poll_s=0.01",
        "vertex.request_timeout_s=3",
        "tracking.uri=http://mlflow.internal:5000",
        # to the end: the profile's own runs end with a challenger
        "deploy.auto=true",
    ]


@pytest.fixture
def vertex_settings(tmp_path: Path, cloud: FakeVertexPipelines) -> list[str]:
    """The same, for a verb."""
    return vertex_sets(tmp_path, cloud)


@pytest.fixture
def aidetect(capsys: pytest.CaptureFixture[str]) -> Aidetect:
    """`aidetect` in this process: words, then `settings`, a list for `--set`."""

    def call(*words: str, settings: list[str] | None = None) -> Ran:
        capsys.readouterr()
        code = run_app([*words, *(part for setting in settings or [] for part in ("--set", setting))])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


class _Served(BaseHTTPRequestHandler):
    """The answers of a server, and of the Prometheus that watches it, that `drift` and `retrain` read."""

    created = datetime.now(UTC) - timedelta(days=10)
    queries: ClassVar = {
        "aidetect_drift_alert": [{"metric": {}, "value": [0, "2"]}],
        "aidetect_drift_score": [{"metric": {"signal": "probability"}, "value": [0, "0.31"]}],
        "aidetect_model_info": [{"metric": {"version": "3"}, "value": [0, "1"]}],
        "aidetect_model_created": [{"metric": {}, "value": [0, str(created.timestamp())]}],
    }

    def do_GET(self) -> None:
        url = urlparse(self.path)
        asked = parse_qs(url.query).get("query", [""])[0]
        found = next((rows for name, rows in self.queries.items() if name in asked), [])
        answers = {
            "/drift": {"state": "ok", "diagnosis": "", "model_version": "3"},
            "/model": {"manifest": {"provenance": {"created_at": self.created.isoformat()}}},
            "/api/v1/query": {"status": "success", "data": {"resultType": "vector", "result": found}},
        }
        payload = json.dumps(answers.get(url.path)).encode()
        self.send_response(200 if url.path in answers else 404)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[str]:
    server = LoopbackServer(_Served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
