"""Before money is spent: what `aidetect run --on vertex` and `aidetect doctor` ask the cloud, and what they refuse."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from serving.platform import mlflow_sign_in
from serving.platform.google_identity import IdTokens
from tests.e2e.conftest import Cli
from tests.fakes.gcs import FakeGcs
from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.google_sign_in import Front, Quiet, issuing, serving
from tests.fakes.policy import Policy
from tests.fakes.vertex_pipelines import FakeVertexPipelines
from tests.pipelines.conftest import DIGEST, Aidetect, Ran
from tests.pipelines.test_compile import ROOT


class FakeRegistry(GoogleRest):
    """An image registry that holds every image but those named in `missing`."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: set[str] = set()
        self.revision = ""
        """Commit that every image says it was built from, each behind an index of architectures; empty: none."""

    @property
    def host(self) -> str:
        """As an image reference names it."""
        return self.url.removeprefix("http://")

    def ask(self, request: Request, policy: Policy) -> None:
        """Looking an image up is reading from the repository."""
        policy.require("artifactregistry.repositories.downloadArtifacts", "repository ai-product-photo-detector")

    def route(self, request: Request) -> dict[str, Any]:
        """Manifests, and the descriptions of images that they name."""
        if self.revision and "/blobs/" in request.path:
            return {"config": {"Labels": {"org.opencontainers.image.revision": self.revision}}}
        found = re.fullmatch(r"/v2/([^@]+)/manifests/(sha256:[0-9a-f]{64})", request.path)
        if not found or found[1] in self.missing:
            raise ApiError(404, "MANIFEST_UNKNOWN")
        if not self.revision:
            return {}
        inner = "sha256:" + "e5" * 32
        return {"config": {"digest": inner}} if found[2] == inner else {"manifests": [{"digest": inner}]}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    yield fake
    fake.close()


class Tracking(Quiet):
    """What stands behind Cloud Run's front: it answers, or refuses as our guard does."""

    refusal: str = ""

    def do_GET(self) -> None:
        refusal = {"error_code": "PERMISSION_DENIED", "message": self.refusal}
        body = json.dumps(refusal if self.refusal else {"experiments": []}).encode()
        asked = self.path.startswith("/api/2.0/mlflow/experiments/search?")
        self.reply(403 if self.refusal else 200 if asked else 404, body, {})


@pytest.fixture
def tracking() -> Iterator[str]:
    """An MLflow server that asks nobody who they are."""
    with serving(Tracking) as url:
        yield url


@pytest.fixture
def settings(vertex_settings: list[str], registry: FakeRegistry, tracking: str) -> list[str]:
    images = [f"images.{name}={registry.host}/{name}{DIGEST}" for name in ("train", "pipeline", "serving")]
    return [
        *vertex_settings,
        *images,
        f"tracking.uri={tracking}",
        "data.uri=gs://photos/cifake",
        "deploy.ledger_path=gs://records/promotions.jsonl",
        "register.bucket=gs://bkt/bundles",
        "train.checkpoint_dir=gs://bkt/checkpoints",
        "register.project=proj",
        "deploy.project=proj",
        "retrain.state_path=gs://records/retrain.jsonl",
        "retrain.feedback_path=gs://records/labels/",
    ]


def submit(aidetect: Aidetect, settings: list[str]) -> Ran:
    return aidetect("run", "--on", "vertex", "--profile", "production", settings=settings)


def doctor(aidetect: Aidetect, settings: list[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    ran = aidetect("doctor", "--profile", "production", "--json", settings=settings)
    return ran.code, {found["subject"]: (found["status"], found["message"]) for found in ran.document}


def test_all_is_there(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, registry: FakeRegistry, settings: list[str]
) -> None:
    code, found = doctor(aidetect, settings)
    assert code == 0, found
    assert found["project proj"] == ("ok", "Vertex AI answers in europe-west1")
    for bucket, word in {"gs://bkt": "written", "gs://photos": "read", "gs://records": "written"}.items():
        assert found[bucket] == ("ok", f"is there and may be {word}")
    assert found["images.train"] == ("ok", f"is in {registry.host}")
    assert found["quota custom_model_training_nvidia_t4_gpus"] == ("ok", "4 in europe-west1, the run needs 1")
    assert cloud.changes == [] and gcs.uploads == []
    ran = submit(aidetect, settings)
    assert ran.code == 0, ran.err
    bill = aidetect("cost", "--json", settings=settings).document
    month = sum(bill["per_month"].values())
    assert (
        f"estimated cost: ${bill['per_run']:.2f} for this run, ${month:.2f} a month for serving, operations and "
        "storage (list prices of europe-west1" in ran.err
    )
    assert "note:" not in ran.err
    assert len(cloud.jobs) == 1


@pytest.mark.usefixtures("cloud", "gcs")
def test_doctor_signs_in_to_mlflow_and_says_who_may(
    aidetect: Aidetect, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", mlflow_sign_in.NAME)
    monkeypatch.setattr(mlflow_sign_in, "_TOKENS", IdTokens())

    def told(url: str) -> tuple[int, tuple[str, str]]:
        code, found = doctor(aidetect, [*settings, f"tracking.uri={url}"])
        return code, found["tracking.uri"]

    word = "write has role read; needs write; name it in MLFLOW_ACCESS_WRITE"
    with issuing() as issuer, serving(Tracking) as answers, serving(Tracking, refusal=word) as refuses:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(issuer.service_account(tmp_path, "ada@example.test")))
        invited = {"issuer": issuer, "invokers": {"ada@example.test"}, "refused": []}
        with serving(Front, **invited, behind=answers) as url:
            assert told(url) == (0, ("ok", f"MLflow answers these credentials at {url}"))
        with serving(Front, **invited, behind=refuses) as url:
            assert told(url) == (1, ("error", f"{url}: HTTP 403: {word}"))
        with serving(Front, issuer=issuer, invokers=set(), refused=[], behind=answers) as url:
            code, (status, message) = told(url)
            assert (code, status) == (1, "error")
            assert "HTTP 403; sign in as one of Terraform's operators" in message
            assert "gcloud auth application-default login" in message
        assert "no answer" in told(url)[1][1]  # the token is kept, the server is gone
        monkeypatch.setattr(mlflow_sign_in, "_TOKENS", IdTokens())
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        code, (status, message) = told(answers)
        assert (code, status) == (1, "error")
        assert "no Google credentials to sign in with; run: gcloud auth application-default login" in message


class Endless(Quiet):
    """A quota service whose answer has no end."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b" " * (1 << 16))


@pytest.mark.usefixtures("cloud", "gcs")
def test_a_quota_s_answer_is_not_read_without_end(aidetect: Aidetect, settings: list[str]) -> None:
    with serving(Endless) as url:
        _, found = doctor(aidetect, [*settings, f"vertex.quota_endpoint={url}"])
    said = ("warning", "not checked: an answer of more than 8 MiB or 30 s")
    assert found["quota custom_model_training_nvidia_t4_gpus"] == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cloud, gcs, registry: gcs.missing.add("bkt"), "gs://bkt: no such bucket"),
        (lambda cloud, gcs, registry: gcs.missing.add("photos"), "gs://photos: no such bucket"),
        (lambda cloud, gcs, registry: registry.missing.add("pipeline"), "images.pipeline: "),
        (lambda cloud, gcs, registry: cloud.t4s.update({"europe-west1": 0}), "0 in europe-west1, the run needs 1"),
    ],
    ids=["bucket", "data", "image", "quota"],
)
def test_what_would_fail_is_refused_before_the_submission(
    aidetect: Aidetect,
    cloud: FakeVertexPipelines,
    gcs: FakeGcs,
    registry: FakeRegistry,
    settings: list[str],
    change: Any,
    message: str,
) -> None:
    change(cloud, gcs, registry)
    ran = submit(aidetect, settings)
    assert ran.code == 1 and message in ran.err
    assert cloud.jobs == {} and cloud.changes == []
    code, found = doctor(aidetect, settings)
    assert code == 1
    bad = {subject: text for subject, (status, text) in found.items() if status == "error"}
    assert len(bad) == 1, bad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("images.train=registry.example/train:latest", "pin it by digest"),
        ("machines.train.cpu=32", "1 T4 attach to at most 24 CPUs"),
        ("train.epoch=3", "train.epoch: unknown key; did you mean 'train.epochs'?"),
        ("vertex.region=europe-north1", "NVIDIA_TESLA_T4 is not offered in europe-north1"),
        ("tracking.uri=", "set tracking.uri to an MLflow server"),
    ],
)
def test_what_is_known_here_is_refused_before_any_request(
    aidetect: Aidetect,
    cloud: FakeVertexPipelines,
    gcs: FakeGcs,
    registry: FakeRegistry,
    settings: list[str],
    change: str,
    message: str,
) -> None:
    ran = submit(aidetect, [*settings, change])
    assert ran.code == 1 and message in ran.err and len(ran.err.splitlines()) == 1
    assert (cloud.requests, gcs.requests, registry.requests) == ([], [], [])


def test_an_image_of_other_code_than_is_compiled_here_is_a_note(
    aidetect: Aidetect, cloud: FakeVertexPipelines, registry: FakeRegistry, settings: list[str]
) -> None:
    registry.revision = "f00dfeed" * 5
    ran = submit(aidetect, settings)
    assert ran.code == 0, ran.err
    said = "was built from f00dfeedf00d, which this clone does not know; its stages run that code"
    notes = [line for line in ran.err.splitlines() if said in line]
    assert [line.partition(": ")[2].partition(":")[0] for line in notes] == ["images.train", "images.pipeline"]
    # the very code that is here, unless it was changed since
    clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "components", "pipelines", "serving"], cwd=ROOT)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    registry.revision = head.stdout.strip()
    status, message = doctor(aidetect, settings)[1]["images.train"]
    assert status == ("ok" if clean.returncode == 0 or not registry.revision else "warning"), message
    registry.revision = f"{registry.revision or 'f00dfeed'}-dirty"
    status, message = doctor(aidetect, settings)[1]["images.train"]
    assert "code" in message if head.returncode == 0 else status == "ok"
    registry.revision = "--output=/etc/passwd"
    assert doctor(aidetect, settings)[1]["images.train"][0] == "ok"


def test_rights_are_those_of_the_identity_that_runs(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, settings: list[str]
) -> None:
    gcs.denied.add("storage.objects.create")
    refused = submit(aidetect, [*settings, "vertex.service_account="])
    assert refused.code == 1 and "gs://bkt: these credentials lack storage.objects.create; grant" in refused.err
    assert "gs://photos" not in refused.err  # is only read
    assert cloud.jobs == {}
    ran = submit(aidetect, settings)
    assert ran.code == 0, ran.err
    assert "pipeline@proj.iam.gserviceaccount.com needs them" in ran.err


def test_a_bucket_that_only_the_run_s_account_sees_is_a_note(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, settings: list[str]
) -> None:
    gcs.fail("b/records", 403)
    refused = submit(aidetect, [*settings, "vertex.service_account="])
    assert refused.code == 1 and "bucket gs://records: 403" in refused.err
    ran = submit(aidetect, settings)
    assert ran.code == 0, ran.err
    assert "note: gs://records: not looked at: " in ran.err
    assert "pipeline@proj.iam.gserviceaccount.com does the run's work" in ran.err


def test_what_cannot_be_asked_is_said_and_stops_nothing(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, settings: list[str]
) -> None:
    cloud.fail("GET", "consumerQuotaMetrics", 403)
    gcs.fail("testPermissions", 501)
    away = [*settings, "images.train=127.0.0.1:9/train" + DIGEST, "vertex.region=us-west1"]
    ran = submit(aidetect, away)
    assert ran.code == 0, ran.err
    assert "note: quota custom_model_training_nvidia_t4_gpus: not checked" in ran.err
    assert "note: gs://bkt: is there; rights on it could not be asked" in ran.err
    assert "note: images.train: could not be looked up in 127.0.0.1:9" in ran.err
    assert "note: no cost estimate: no price of a " in ran.err and "us-west1" in ran.err
    assert len(cloud.jobs) == 1


def test_a_wrong_project_and_missing_credentials_are_one_finding(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    cloud.fail("GET", "pipelineJobs", 403, times=1)
    code, found = doctor(aidetect, settings)
    assert code == 1
    assert found["project proj"][0] == "error" and "403" in found["project proj"][1]
    assert "gs://bkt" not in found  # nothing further is asked with an identity that has no access
    # Google's own address: the client looks for credentials, and finds a file that is none
    nobody = tmp_path / "nobody.json"
    nobody.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(nobody))
    code, found = doctor(aidetect, [*settings, "vertex.api_endpoint="])
    assert code == 1
    assert found["project proj"][0] == "error" and "credentials" in found["project proj"][1]
    sets = [part for setting in [*settings, "vertex.api_endpoint="] for part in ("--set", setting)]
    # a process of its own: the client library keeps the address of its first call
    ran = Cli(tmp_path)("run", "--on", "vertex", "--profile", "production", *sets)
    assert ran.returncode == 1 and "submit to Vertex AI in proj: no Google credentials" in ran.stderr
    assert "Traceback" not in ran.stderr and cloud.jobs == {}


def test_without_a_project_the_cloud_is_not_asked(aidetect: Aidetect) -> None:
    ran = aidetect("doctor", "--json")
    found = {finding["subject"]: finding["message"] for finding in ran.document}
    assert found["cloud"] == "not asked for: this profile reads, trains and serves on this machine"


def test_a_fresh_clone_is_not_ready_for_production_and_each_missing_thing_has_its_command(aidetect: Aidetect) -> None:
    ran = aidetect("doctor", "--profile", "production")
    assert ran.code == 1
    wrong = [line for line in ran.out.splitlines() if line.startswith("✗")]
    for line, command in {
        "✗ configuration: set vertex.project and vertex.bucket": "run: aidetect init",
        "✗ configuration: set tracking.uri to an MLflow server": "aidetect bootstrap",
        "✗ placeholder: 'your-project' still stands in data.uri, ": "run: aidetect init",
        "✗ images.train: was never pushed": "aidetect bootstrap",
        "✗ images.pipeline: was never pushed": "aidetect bootstrap",
        "✗ images.serving: was never pushed": "aidetect bootstrap",
    }.items():
        assert [found for found in wrong if found.startswith(line) and command in found], (line, ran.out)
    told = aidetect("schedule", "plan", "--profile", "production").err
    assert all(problem in told for problem in ("vertex.project", "tracking.uri", "images.train")), (
        "as a submission says"
    )


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (["data.uri=gs://photos"], True),
        (
            [
                *("register.vertex=true", "register.project=p", "register.region=europe-west1"),
                *("register.serving_image=x" + DIGEST, "register.bucket=gs://b"),
            ],
            True,
        ),
        (["vertex.bucket=gs://b"], True),
        (["deploy.target=cloud_run", "deploy.project=p", "deploy.region=europe-west1"], False),
    ],
    ids=["data", "register", "bucket", "deploy"],
)
def test_whatever_of_a_run_is_in_the_cloud_makes_doctor_ask(aidetect: Aidetect, wanted: list[str], asked: bool) -> None:
    ran = aidetect("doctor", "--json", settings=wanted)
    found = {finding["subject"]: finding["message"] for finding in ran.document}
    assert (ran.code, "cloud" in found) == ((1, False) if asked else (0, True))
    assert asked or found["cloud"] == "cloud_run was not looked at: only runs on Vertex AI are"
