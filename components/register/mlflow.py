"""A new version in the MLflow registry: all of it, or nothing of it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.context import RunContext
from components.artifacts.model_version import Release
from components.platform.registry import Registry, registry_errors
from components.platform.tracking import RUN_ID_TAG, find_or_create_run
from serving.detector.bundle import RELEASE
from serving.registry import DIGEST_TAG, RELEASE_TAG, UNFINISHED_TAG, release_digest

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass
class Draft:
    """A version being made; `discard` takes back whatever of it already stands."""

    registry: Registry
    run_id: str
    """MLflow's own id of the run that holds the files."""
    artifact_path: str
    made_model: bool = False
    version: str | None = None

    def discard(self) -> None:
        """Remove version, model name and files made so far. Best effort: the first error stays the one reported."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        client, name = self.registry.client, self.registry.name
        if self.version is not None:
            with contextlib.suppress(Exception):
                client.delete_model_version(name, self.version)
        if self.made_model:
            with contextlib.suppress(Exception):
                client.delete_registered_model(name)
        with contextlib.suppress(Exception):
            uri = client.get_run(self.run_id).info.artifact_uri
            files = get_artifact_repository(uri, tracking_uri=self.registry.tracking_uri)
            files.delete_artifacts(self.artifact_path)  # type: ignore[no-untyped-call] # MLflow's stores are untyped


def begin(registry: Registry, context: RunContext, digest: str) -> Draft:
    """Find the MLflow run of this pipeline run; nothing of a version stands yet."""
    with registry_errors(registry.tracking_uri):
        run_id = find_or_create_run(registry.client, context)
    # named by content: registering again under the same run never touches files of a version that stands
    return Draft(registry, run_id, f"bundle-{digest[:12]}")


def create(draft: Draft, bundle: Path, release_dir: Path, release: Release) -> str:
    """Store the files, then make the version that points at them; returns its number.

    Files go first: a version that exists has them all, even if this process dies on the next line. It is marked as
    unfinished until `finish`.
    """
    registry, client = draft.registry, draft.registry.client
    with registry_errors(registry.tracking_uri):
        client.log_artifacts(draft.run_id, str(bundle), draft.artifact_path)
        client.log_artifacts(draft.run_id, str(release_dir), f"{draft.artifact_path}/{RELEASE}")
        draft.made_model = _ensure_model(client, registry.name)
        # a runs:/ source, because an MLflow server refuses paths of its clients
        made = client.create_model_version(
            registry.name,
            f"runs:/{draft.run_id}/{draft.artifact_path}",
            run_id=draft.run_id,
            tags={**_tags(release), RELEASE_TAG: release_digest(release_dir), UNFINISHED_TAG: release.run_id},
        )
        draft.version = str(made.version)
    return draft.version


def finish(registry: Registry, number: str) -> None:
    """End the run of a version whose every part stands, and let it be served."""
    client, version = registry.client, registry.get(number)
    if UNFINISHED_TAG not in version.tags:
        return
    with registry_errors(registry.tracking_uri):
        if version.run_id and client.get_run(version.run_id).info.status == "RUNNING":
            client.set_terminated(version.run_id)
        client.delete_model_version_tag(registry.name, number, UNFINISHED_TAG)


def _ensure_model(client: "MlflowClient", name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":
            return False
        raise
    return True


def _tags(release: Release) -> dict[str, str]:
    lineage = {
        DIGEST_TAG: release.bundle_digest,
        RUN_ID_TAG: release.run_id,
        "git_sha": release.git_sha,
        "data_fingerprint": release.data_fingerprint,
        "verdict": release.verdict,
    }
    return lineage | {f"metric.{name}": repr(metric.value) for name, metric in release.metrics.items()}
