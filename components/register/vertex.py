"""A new version in Vertex Model Registry: its bundle in Cloud Storage, its container, lineage and evaluation."""

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.artifacts.context import RunContext
from components.artifacts.evaluation import Evaluation
from components.artifacts.model_version import CHALLENGER, Release
from components.platform.cloud_storage import send_files
from components.platform.google_cloud import connect, google_errors, label, patience
from components.register.config import RegisterConfig
from serving.detector.bundle import RELEASE
from serving.detector.labels import LABELS
from serving.platform.errors import StageError

_METRICS_SCHEMA: Final = "gs://google-cloud-aiplatform/schema/modelevaluation/classification_metrics_1.0.0.yaml"
_DIGEST_LABEL: Final = "bundle-digest"


@dataclass(frozen=True, slots=True)
class Published:
    """Where a version stands on Google Cloud."""

    bundle_uri: str
    resource: str
    """`projects/…/models/…@2`."""


def publish(
    bundle: Path,
    release_dir: Path,
    evaluation: Evaluation,
    release: Release,
    number: str,
    config: RegisterConfig,
    context: RunContext,
    undo: ExitStack,
) -> Published:
    """Upload the bundle and make the version, or find the one that holds this bundle already.

    Args:
        bundle: the sealed bundle's folder.
        release_dir: the four files of its release record.
        evaluation: its figures; attached as a model evaluation.
        release: its lineage; becomes labels.
        number: the version's number in MLflow; the server answers with it.
        config: where to.
        context: names the model.
        undo: receives what takes each step back.

    Raises:
        StageError: Google refused; nothing made here is left once `undo` has run.
    """
    if not config.serving_image:
        raise StageError("register.vertex needs an image to serve with: set images.serving, by digest")
    bundle_uri = f"{config.bucket.rstrip('/')}/{context.model_name}/{release.bundle_digest}"
    files = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    files |= {f"{RELEASE}/{path.name}": path for path in release_dir.iterdir()}
    send_files(files, bundle_uri, config.upload_timeout_s, undo)
    models = _Models(config, context)
    with google_errors("register in Vertex Model Registry"):
        new = models.by_digest(release.bundle_digest) is None
        if new:
            models.upload(bundle_uri, release, number, undo)
        # a process that was killed may leave a version without its figures, and an upload that ends after this one
        resource = models.sole(release.bundle_digest)
        if new or not models.evaluated(resource):
            models.attach(resource, evaluation)
    return Published(bundle_uri, resource)


class _Models:
    """Versions of one model in Vertex Model Registry."""

    def __init__(self, config: RegisterConfig, context: RunContext) -> None:
        from google.cloud import aiplatform_v1

        self._config = config
        self._parent = f"projects/{config.project}/locations/{config.region}"
        self._id = label(context.model_name)
        self._name = f"{self._parent}/models/{self._id}"
        self._options = {"retry": patience(config.retry_timeout_s), "timeout": config.request_timeout_s}
        with google_errors("Vertex Model Registry"):
            host = f"{config.region}-aiplatform.googleapis.com"
            self._client = connect(aiplatform_v1.ModelServiceClient, host, config.api_endpoint)

    def by_digest(self, digest: str) -> str | None:
        """Resource name of the version that holds this bundle, or None."""
        found = self._of(digest)
        return f"{self._name}@{found[0].version_id}" if found else None

    def sole(self, digest: str) -> str:
        """Resource name of the version that holds this bundle, once any other that does is gone."""
        first, *others = self._of(digest)
        for other in others:
            self._client.delete_model_version(
                name=f"{self._name}@{other.version_id}", timeout=self._config.request_timeout_s
            ).result(timeout=self._config.timeout_s)
        resource = f"{self._name}@{first.version_id}"
        if any(CHALLENGER in other.version_aliases for other in others):
            self._client.merge_version_aliases(name=resource, version_aliases=[CHALLENGER], **self._options)
        return resource

    def upload(self, bundle_uri: str, release: Release, number: str, undo: ExitStack) -> None:
        """Make a version aliased `challenger`, never the default one: that is for a promotion to say."""
        from google.cloud import aiplatform_v1 as vertex

        versions = self._versions()
        challenger = next((v.version_id for v in versions if CHALLENGER in v.version_aliases), None)
        config = self._config
        model = vertex.Model(
            display_name=self._id,
            artifact_uri=bundle_uri,
            container_spec=vertex.ModelContainerSpec(
                image_uri=config.serving_image,
                predict_route=config.predict_route,
                health_route=config.health_route,
                ports=[vertex.Port(container_port=config.container_port)],
                # Vertex copies the bundle to a folder of its own: the digest says which one it must still be
                env=[
                    vertex.EnvVar(name="MODEL_VERSION", value=number),
                    vertex.EnvVar(name="MODEL_DIGEST", value=release.bundle_digest),
                ],
            ),
            version_aliases=[CHALLENGER],
            version_description=release.verdict,
            labels={
                "run-id": label(release.run_id),
                "git-sha": label(release.git_sha),
                "data-fingerprint": label(release.data_fingerprint),
                _DIGEST_LABEL: label(release.bundle_digest),
                "mlflow-version": label(number),
            },
        )
        # taken back by digest, not by name: a version may stand although the answer that names it was lost
        undo.callback(self._discard, release.bundle_digest, challenger, first=not versions)
        # not asked again for the same reason: a second upload could make a second version
        operation = self._client.upload_model(
            vertex.UploadModelRequest(
                parent=self._parent,
                model=model,
                model_id="" if versions else self._id,
                parent_model=self._name if versions else "",
            ),
            timeout=config.request_timeout_s,
        )
        operation.result(timeout=config.timeout_s)

    def evaluated(self, resource: str) -> bool:
        """Whether a version has an evaluation."""
        return any(True for _ in self._client.list_model_evaluations(parent=resource, **self._options))

    def attach(self, resource: str, evaluation: Evaluation) -> None:
        """Attach the test figures as a model evaluation."""
        from google.cloud import aiplatform_v1 as vertex
        from google.protobuf import json_format, struct_pb2

        metrics = json_format.ParseDict(_classification_metrics(evaluation), struct_pb2.Value())
        self._client.import_model_evaluation(
            parent=resource,
            model_evaluation=vertex.ModelEvaluation(
                display_name="frozen test split", metrics_schema_uri=_METRICS_SCHEMA, metrics=metrics
            ),
            timeout=self._config.request_timeout_s,
        )

    def _of(self, digest: str) -> list[Any]:
        """The versions that hold this bundle: one; the first is what serves, or the oldest."""
        found = [version for version in self._versions() if version.labels.get(_DIGEST_LABEL) == label(digest)]
        # an alias that register does not give is a promotion's; `default` cannot be deleted
        return sorted(found, key=lambda v: (not set(v.version_aliases) - {CHALLENGER}, int(v.version_id)))

    def _versions(self) -> list[Any]:
        from google.api_core.exceptions import NotFound

        with google_errors("list Vertex Model Registry"):
            try:
                return list(self._client.list_model_versions(name=self._name, **self._options))
            except NotFound:
                return []

    def _discard(self, digest: str, challenger: str | None, *, first: bool) -> None:
        with contextlib.suppress(Exception):
            resource = self.by_digest(digest)
            if resource is None:
                return
            if first:  # the only version is the default one, which goes with its model only
                self._client.delete_model(name=self._name, **self._options).result(timeout=self._config.timeout_s)
                return
            self._client.delete_model_version(name=resource, **self._options).result(timeout=self._config.timeout_s)
        if challenger is not None:
            with contextlib.suppress(Exception):
                self._client.merge_version_aliases(
                    name=f"{self._name}@{challenger}", version_aliases=[CHALLENGER], **self._options
                )


def _classification_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The figures in the fields of Vertex's schema for classification; those it has no field for stay in MLflow."""
    figures = {name: metric.value for name, metric in evaluation.test.metrics.items()}
    counts = evaluation.test.confusion
    document: dict[str, Any] = {
        "confidenceMetrics": [
            {
                "confidenceThreshold": evaluation.threshold,
                **{
                    theirs: figures[ours]
                    for ours, theirs in (
                        ("precision", "precision"),
                        ("recall", "recall"),
                        ("f1", "f1Score"),
                        ("fpr", "falsePositiveRate"),
                    )
                    if ours in figures
                },
            }
        ],
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": name} for name in LABELS],
            "rows": [[counts.true_real, counts.false_ai], [counts.false_real, counts.true_ai]],
        },
    }
    for ours, theirs in (("roc_auc", "auRoc"), ("pr_auc", "auPrc")):
        if ours in figures:
            document[theirs] = figures[ours]
    return document
