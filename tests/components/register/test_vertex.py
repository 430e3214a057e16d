"""Vertex Model Registry and Cloud Storage through Google's own clients, against servers on loopback."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.cloud import aiplatform_v1 as vertex

from components.artifacts.context import RunContext
from components.artifacts.model_version import ModelVersion
from components.platform.registry import Registry, list_models
from components.register.config import RegisterConfig
from serving.detector.bundle import read_manifest
from serving.platform.errors import StageError
from tests.bundles import make_bundle
from tests.cloud.first_day import first_day
from tests.fakes.gcs import FakeGcs
from tests.fakes.policy import Policy, plan_of
from tests.fakes.vertex import PARENT, FakeVertex, parse
from tests.releases import make_context, registered

MODEL = f"{PARENT}/models/ai-product-photo-detector"
IMAGE = "europe-docker.pkg.dev/proj/ml/serving@sha256:" + "1" * 64


@dataclass
class Google:
    gcs: FakeGcs
    vertex: FakeVertex
    context: RunContext
    folder: Path

    def register(self, name: str, bundle: Path, **changes: object) -> ModelVersion:
        values = {
            "vertex": True,
            "project": "proj",
            "region": "europe-west1",
            "bucket": "gs://models/bundles",
            "serving_image": IMAGE,
            "api_endpoint": self.vertex.url,
            "retry_timeout_s": 2.0,
        }
        return registered(self.folder / name, bundle, self.context, RegisterConfig.model_validate(values | changes))


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated: Path) -> Iterator[Google]:
    (tmp_path / "mlflow.db").write_bytes(migrated.read_bytes())
    gcs, api = FakeGcs(), FakeVertex()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    yield Google(gcs, api, make_context(tmp_path), tmp_path)
    gcs.close()
    api.close()


def test_first_upload_field_by_field(google: Google, toy_bundle: Path) -> None:
    version = google.register("1", toy_bundle)
    digest = read_manifest(toy_bundle).digest
    assert version.bundle_uri == f"gs://models/bundles/ai-product-photo-detector/{digest}"
    assert version.vertex_resource == f"{MODEL}@1"

    prefix = f"models/bundles/ai-product-photo-detector/{digest}/"
    sent = {key.removeprefix(prefix): content for key, content in google.gcs.objects.items()}
    for path in toy_bundle.rglob("*"):
        if path.is_file():
            assert sent[path.relative_to(toy_bundle).as_posix()] == path.read_bytes()
    assert json.loads(sent["release/release.json"])["bundle_digest"] == digest

    (upload,) = [r for r in google.vertex.requests if r.path.endswith("models:upload")]
    body = parse(vertex.UploadModelRequest, upload.body)
    assert (body.model_id, body.parent_model) == ("ai-product-photo-detector", "")
    assert body.model.artifact_uri == version.bundle_uri
    container = body.model.container_spec
    assert (container.image_uri, container.predict_route, container.health_route) == (
        IMAGE,
        "/vertex/predict",
        "/vertex/health",
    )
    assert [port.container_port for port in container.ports] == [8080]
    assert {v.name: v.value for v in container.env} == {"MODEL_VERSION": "1", "MODEL_DIGEST": digest}
    assert list(body.model.version_aliases) == ["challenger"]
    assert dict(body.model.labels) == {
        "run-id": "run-1",
        "git-sha": "a" * 40,
        "data-fingerprint": "d" * 63,
        "bundle-digest": digest[:63],
        "mlflow-version": "1",
    }
    evaluation = google.vertex.evaluations[f"{MODEL}@1"]
    assert evaluation.metrics_schema_uri.endswith("classification_metrics_1.0.0.yaml")
    assert list(evaluation.metrics["confusionMatrix"]["rows"][0]) == [93, 7]


def test_second_version_takes_the_challenger_but_never_the_default(google: Google, toy_bundle: Path) -> None:
    google.register("1", toy_bundle)
    second = google.register("2", make_bundle(google.folder / "other", seed=5))
    assert second.vertex_resource == f"{MODEL}@2"
    assert google.vertex.aliases(MODEL) == {"default": "1", "challenger": "2"}


def test_again_sends_nothing(google: Google, toy_bundle: Path) -> None:
    first = google.register("1", toy_bundle)
    files, calls = len(google.gcs.uploads), len(google.vertex.requests)
    assert google.register("2", toy_bundle) == first
    assert len(google.gcs.uploads) == files
    assert {r.method for r in google.vertex.requests[calls:]} == {"GET"}


def assert_nothing_new(google: Google) -> None:
    """Version 1 and its aliases stand alone, in every registry and bucket."""
    (row,) = list_models(google.context.tracking_uri, google.context.model_name)
    assert (row.version, row.aliases) == ("1", ("challenger",))
    assert google.vertex.aliases(MODEL) == {"challenger": "1", "default": "1"}
    assert len({key.split("/")[3] for key in google.gcs.objects}) == 1


@pytest.mark.parametrize(
    ("part", "code", "said"),
    [
        ("models:upload", 403, "403 .*grant the calling service account"),
        ("models:upload", 429, "429 .*quota"),
        ("models:upload", 503, "503"),
        (":import", 403, "403"),
        ("/operations/", 404, "404"),
    ],
)
def test_refused_by_vertex_leaves_nothing(google: Google, toy_bundle: Path, part: str, code: int, said: str) -> None:
    google.register("1", toy_bundle)
    method = "GET" if "operations" in part else "POST"
    google.vertex.fail(method, part, code, times=1)
    with pytest.raises(StageError, match=f"register in Vertex Model Registry: .*{said}") as caught:
        google.register("2", make_bundle(google.folder / "other", seed=5))
    assert "\n" not in str(caught.value)
    assert_nothing_new(google)


def test_refused_first_version_leaves_no_model(google: Google, toy_bundle: Path) -> None:
    google.vertex.fail("POST", ":import", 403)
    with pytest.raises(StageError, match="403"):
        google.register("1", toy_bundle)
    assert google.vertex.models == {}
    assert google.gcs.objects == {}
    assert list_models(google.context.tracking_uri, google.context.model_name) == []
    assert Registry(google.context.tracking_uri, google.context.model_name).aliased("challenger") is None


@pytest.mark.parametrize("code", [429, 503])
def test_busy_listing_is_asked_again(google: Google, toy_bundle: Path, code: int) -> None:
    google.vertex.fail("GET", ":listVersions", code, times=2)
    assert google.register("1", toy_bundle).vertex_resource == f"{MODEL}@1"


def test_network_cut_during_the_upload_leaves_nothing(
    google: Google, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.register("1", toy_bundle)
    google.gcs.cut = "model.onnx"
    with pytest.raises(StageError, match="upload to gs://models") as caught:
        google.register("2", make_bundle(google.folder / "other", seed=5), upload_timeout_s=2.0)
    assert "\n" not in str(caught.value)
    assert_nothing_new(google)


def test_no_credentials_leave_nothing(google: Google, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    google.register("1", toy_bundle)
    nobody = google.folder / "nobody.json"
    nobody.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(nobody))
    with pytest.raises(StageError, match="Vertex Model Registry: no Google credentials; run: gcloud") as caught:
        google.register("2", make_bundle(google.folder / "other", seed=5), api_endpoint="")
    assert "\n" not in str(caught.value)
    assert_nothing_new(google)


@pytest.mark.parametrize(("code", "said"), [(403, "grant the calling service account"), (404, "check project")])
def test_a_bucket_that_refuses_leaves_nothing(google: Google, toy_bundle: Path, code: int, said: str) -> None:
    google.register("1", toy_bundle)
    google.gcs.fail("/upload/", code)
    with pytest.raises(StageError, match=f"upload to gs://models/.*{said}"):
        google.register("2", make_bundle(google.folder / "other", seed=5))
    assert_nothing_new(google)


def test_an_answer_lost_on_the_way_leaves_nothing(google: Google, toy_bundle: Path) -> None:
    google.register("1", toy_bundle)
    google.vertex.cut("POST", "models:upload", carried_out=True)
    with pytest.raises(StageError, match=r"register in Vertex Model Registry: .*check the network"):
        google.register("2", make_bundle(google.folder / "other", seed=5))
    assert_nothing_new(google)


def test_the_pipeline_s_account_may_register_and_asks_for_what_the_first_day_lists(
    google: Google, toy_bundle: Path
) -> None:
    policy = Policy(plan_of("prod"), aliases={"models": "example-project-aidetect-models"})
    policy.as_account("pipeline", "register")
    google.gcs.policy = google.vertex.policy = policy
    google.register("1", toy_bundle)
    google.register("2", make_bundle(google.folder / "other", seed=5))
    listed = Policy(plan_of("prod"))
    listed.as_account("pipeline", "register")
    (step,) = [s for s in first_day("prod") if s.name == "register"]
    for act in step.acts:
        act(listed)
    asked = {(call.permission, call.resource) for call in policy.asked}
    # what is read and deleted again is read by deploy, and taken back where a step fails
    assert asked <= {(call.permission, call.resource) for call in listed.asked}
    assert ("aiplatform.models.upload", "project") in asked

    grant = 'google_project_iam_member.this["pipeline roles/aiplatform.user"]'
    policy.plan = plan_of("prod", f"module.platform.module.iam.{grant}")
    with pytest.raises(StageError, match=r"Permission 'aiplatform\.models\.\w+' denied"):
        google.register("3", make_bundle(google.folder / "third", seed=6))
