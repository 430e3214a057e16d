"""The cloud run, rehearsed offline: one command from submission to a promoted service, then a refusal, then a rollback.

Real: `aidetect`, the compiled spec, Google's client libraries, the images, MLflow, the HTTP between them. Stand-ins on
loopback: Vertex AI (executes the submitted spec), Cloud Run (starts the submitted image), Cloud Storage (an emulator).
The training is of seconds and its gate asks for little: what is rehearsed is the way, not the model.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from google.cloud import storage

from components.platform.registry import Registry
from tests.e2e.conftest import SMALL
from tests.fakes.secret_manager import FakeSecretManager
from tests.fakes.vertex import PARENT
from tests.rehearsal.conftest import API_KEY, BUCKET, Started
from tests.rehearsal.container_run import ContainerCloudRun
from tests.rehearsal.executing_vertex import REGION, ExecutingVertex
from tests.rehearsal.images import ROOT, Images

SERVICE_ACCOUNT = "pipeline@proj.iam.gserviceaccount.com"
MODEL = "ai-product-photo-detector"
LEDGER = "promotions.jsonl"
# the client library asks Google who owns the bucket, at an address that no setting changes; nothing else is replaced
AIDETECT = """
from google.cloud.aiplatform.utils import resource_manager_utils
resource_manager_utils.get_project_number = lambda *_, **__: "1234"
from pipelines.cli import main
main()
"""
INVERT = (
    "cd serving/http/routes"
    " && sed -i 's/: verdict.prediction,/: sorted({verdict.prediction} ^ {*LABELS})[0],/' predict.py"
    " && sed -i '/^from typing/i from serving.detector.labels import LABELS' predict.py && grep -c LABELS predict.py"
)
"""What breaks a serving image so that only its answers show it."""
COMMAND = ("run", "--on", "vertex", "--profile", "production", "--sync", "--json")


@dataclass
class Cloud:
    """All of it, and the one command that drives it."""

    vertex: ExecutingVertex
    run: ContainerCloudRun
    images: Images
    mlflow_uri: str
    secrets: FakeSecretManager
    workspace: Path

    def aidetect_run(self, **changes: str) -> "tuple[int, dict[str, Any]]":
        """`aidetect run --on vertex --sync`; its exit code and record."""
        settings = {
            **SMALL,
            "paths.workspace": str(self.workspace),
            "data.uri": f"gs://{BUCKET}/data/sample",
            "tracking.uri": self.mlflow_uri,
            "train.batch_size": "32",
            "gate.min_accuracy": "0",
            "gate.min_f1": "0",
            **{f"images.{name}": self.images.pinned(name) for name in ("train", "pipeline", "serving")},
            "vertex.project": "proj",
            "vertex.region": REGION,
            "vertex.bucket": f"gs://{BUCKET}",
            "vertex.service_account": SERVICE_ACCOUNT,
            "vertex.api_endpoint": self.vertex.url,
            "vertex.quota_endpoint": self.vertex.url,
            "vertex.poll_s": "0.5",
            "retrain.state_path": f"gs://{BUCKET}/retrain.jsonl",
            "register.project": "proj",
            "register.region": REGION,
            "register.bucket": f"gs://{BUCKET}/bundles",
            "train.checkpoint_dir": f"gs://{BUCKET}/checkpoints",
            "register.serving_image": self.images.pinned("serving"),
            "register.api_endpoint": self.vertex.url,
            "deploy.project": "proj",
            "deploy.region": REGION,
            "deploy.service": "detector",
            "deploy.ledger_path": f"gs://{BUCKET}/{LEDGER}",
            "deploy.image": self.images.pinned("serving"),
            "deploy.run_api_endpoint": self.run.url,
            "deploy.vertex_api_endpoint": self.vertex.url,
            "deploy.secrets_api_endpoint": self.secrets.url,
            "deploy.canary_hold_s": "4",
            # all six stages in one run, as with Terraform's pipeline_deploys
            "deploy.auto": "true",
            **changes,
        }
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        done = subprocess.run(
            [sys.executable, "-c", AIDETECT, *COMMAND, *sets],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.stdout, done.stderr
        record = json.loads(done.stdout)
        tell(f"aidetect run --on vertex --sync: exit {done.returncode}, {record['status']}. {record['headline']}")
        if record["error"]:
            tell(record["error"])
        return done.returncode, record

    @property
    def state(self) -> dict[str, Any]:
        """Everything that a run which fails must leave as it was."""
        registry = Registry(self.mlflow_uri, MODEL)
        blob = storage.Client().bucket(BUCKET).blob(LEDGER)
        entries = [json.loads(line) for line in blob.download_as_bytes().splitlines()] if blob.exists() else []
        return {
            "champion": registry.aliased("champion"),
            "vertex champion": self.vertex.aliases(f"{PARENT}/models/{MODEL}").get("champion"),
            "versions": len(registry.summaries()),
            "promotions": [entry["to_version"] for entry in entries if entry["outcome"] == "promoted"],
            "split": {self.run.image(name).partition("@")[2]: share for name, share in self.run.split.items()},
            "model": [self.run.environment(name)["MODEL_VERSION"] for name in self.run.split],
            "pinned": self.run.pinned,
        }

    def predict(self) -> dict[str, Any]:
        """The public address's answer to a photo of those that the emulator holds."""
        photo = pq.read_table(ROOT / "tests/sample64/test.parquet").to_pylist()[0]["image"]["bytes"]
        url = f"{self.run.service.uri}/predict"
        stranger = httpx.post(url, files={"file": photo}, trust_env=False, timeout=60)
        assert stranger.status_code == 401, "the service asks for a key"
        answer = httpx.post(url, files={"file": photo}, headers={"X-API-Key": API_KEY}, trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def tell(line: str) -> None:
    """A line of the rehearsal's own account (`pytest -s` shows it)."""
    print(f"  {line}", flush=True)


@pytest.fixture(scope="module")
def cloud(
    mlflow_starting: str,
    vertex: ExecutingVertex,
    cloud_run: ContainerCloudRun,
    images: Images,
    mlflow_uri: str,
    secrets: FakeSecretManager,
    tmp_path_factory: pytest.TempPathFactory,
) -> Cloud:
    assert mlflow_uri == mlflow_starting
    return Cloud(vertex, cloud_run, images, mlflow_uri, secrets, tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def promoted(cloud: Cloud) -> Cloud:
    """The first test's result, for those that start from a champion."""
    if cloud.state["champion"] is None:
        assert cloud.aidetect_run()[0] == 0
    return cloud


def test_a_run_is_submitted_executed_registered_and_promoted(cloud: Cloud, started: Started) -> None:
    assert cloud.state["model"] == ["first"]
    code, record = cloud.aidetect_run()
    assert (code, record["status"]) == (0, "deployed"), record
    assert [stage["status"] for stage in record["stages"]] == ["succeeded"] * 6

    body = cloud.vertex.submitted[-1].body
    assert body["serviceAccount"] == SERVICE_ACCOUNT
    executors = body["pipelineSpec"]["deploymentSpec"]["executors"]
    assert len(executors) == 6
    serving = cloud.images.resolve(cloud.images.pinned("serving"))
    # what was submitted is by digest; what runs by name on the same engine is another rehearsal's
    ran = [image for image in started.images if image.startswith("sha256:") and image != serving]
    for stage, image in zip(record["stages"], ran, strict=True):
        container = executors[f"exec-{stage['name'].replace('_', '-')}"]["container"]
        resources = container["resources"]
        accelerator = resources.get("accelerator")
        with_gpu = f" + {accelerator['count']} x {accelerator['type']}" if accelerator else ""
        tell(f"{stage['name']:<12} {stage['seconds']:5.1f} s  {container['image'].rpartition('/')[2][:32]}…")
        tell(f"{'':<21} {resources['cpuLimit']:g} CPUs, {resources['memoryLimit']:g} GB{with_gpu}")
        assert cloud.images.name(image) == ("train" if stage["name"] in ("train", "evaluate") else "pipeline")
        assert container["image"].endswith(image), "executed another image than was submitted"
    train = executors["exec-train"]["container"]["resources"]
    assert (train["accelerator"], train["cpuLimit"], train["memoryLimit"]) == (
        train["accelerator"] | {"type": "NVIDIA_TESLA_T4", "count": "1"},
        8.0,
        30.0,
    )
    tell(f"service account {body['serviceAccount']}, pipeline root {body['runtimeConfig']['gcsOutputDirectory']}")

    assert cloud.state == {
        "champion": "1",
        "vertex champion": "1",
        "versions": 1,
        "promotions": ["1"],
        "split": {serving: 100},
        "model": ["1"],
        "pinned": False,
    }
    assert len(cloud.run.front.answered) == 2, "both revisions had users while the canary was held"
    tell(f"requests through the public address: {dict(cloud.run.front.answered)}")
    answer = cloud.predict()
    tell(f"POST {cloud.run.service.uri}/predict: {json.dumps(answer)}")
    assert answer["model_version"] == "1"


def test_a_gate_that_refuses_registers_nothing(promoted: Cloud) -> None:
    before = promoted.state
    updates = len(promoted.run.updates)
    # what the first run made of the same inputs is made no second time; the gate has a champion to ask about now
    promoted.vertex.take_over("verify_data", "train")
    code, record = promoted.aidetect_run(**{"gate.min_accuracy": "0.99"})
    assert (code, record["status"]) == (2, "refused"), record
    assert "REFUSED" in record["headline"]
    stages = {stage["name"]: stage["status"] for stage in record["stages"]}
    assert (stages["quality_gate"], stages["register"], stages["deploy"]) == ("succeeded", "pending", "pending")
    assert promoted.state == before
    assert len(promoted.run.updates) == updates


def test_a_broken_image_is_found_by_the_smoke_test_and_rolled_back(promoted: Cloud) -> None:
    before = promoted.state
    # ready, healthy, 200 to everything, and its labels are the wrong way round
    broken = promoted.images.derive("serving", "inverted", ["USER 0", f"RUN {INVERT}", "USER 10001:10001"])
    promoted.vertex.take_over("verify_data")
    code, record = promoted.aidetect_run(
        **{"train.label_smoothing": "0.01", "evaluate.champion_uri": "", "deploy.image": broken}
    )
    assert (code, record["status"]) == (1, "failed"), record
    assert record["error"].startswith("deploy: smoke test: ")
    assert promoted.state == {**before, "versions": before["versions"] + 1}
    tried = [name for name in promoted.run.made if promoted.run.image(name) == broken]
    assert len(tried) == 1
    assert promoted.run.front.answered[tried[0]] == 0, "the broken revision had users"
    last = storage.Client().bucket(BUCKET).blob(LEDGER).download_as_bytes().splitlines()[-1]
    assert json.loads(last)["outcome"] == "rolled_back"
    tell(f"ledger: rolled back, {json.loads(last)['reason']}")
    answer = promoted.predict()
    assert answer["model_version"] == "1"
    tell(f"users are still answered by version {answer['model_version']}: {answer['prediction']}")
