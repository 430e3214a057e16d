"""The model registry (MLflow) as the stages see it: find a version, read and move an alias."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from components.artifacts.model_version import ModelVersion
from components.platform.database import ready
from serving.platform.errors import SignInError, StageError, one_line
from serving.platform.mlflow_sign_in import sign_in
from serving.registry import DIGEST_TAG, UNFINISHED_TAG
from serving.registry_file import RegisteredVersion, read_versions

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.tracking import MlflowClient


ROLLED_BACK_TAG: Final = "rolled_back"


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One row of `list_models`."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created_at: str
    """UTC, ISO 8601."""
    digest: str
    run_id: str
    git_sha: str
    headline: str
    metrics: dict[str, float]
    rolled_back: bool = False
    """Taken out of service by a rollback: only `aidetect promote NUMBER` brings it back."""
    unfinished: bool = False
    """Half registered: not served until the same bundle is registered again."""

    @property
    def uri(self) -> str:
        """`models:/name/version`."""
        return f"models:/{self.name}/{self.version}"


def open_client(tracking_uri: str) -> "MlflowClient":
    """A client of the tracking server and registry; a sqlite file is made when missing.

    Raises:
        StageError: no address, or one that MLflow cannot use.
    """
    if not tracking_uri:
        raise StageError("no model registry: set tracking_uri to an MLflow server or to sqlite:///PATH")
    from mlflow.environment_variables import (
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
    )
    from mlflow.tracking import MlflowClient

    for setting, value in (
        (MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, False),
        (MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT, True),
    ):
        setting.set(value)  # type: ignore[no-untyped-call] # MLflow's settings are untyped
    for chatty in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with registry_errors(tracking_uri):
        sign_in(tracking_uri)
        ready(tracking_uri)
        return MlflowClient(tracking_uri, tracking_uri)


@contextmanager
def registry_errors(tracking_uri: str) -> Iterator[None]:
    """Turn what MLflow raises into one line that names the registry."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, SignInError) as error:
        reason = one_line(error)
        raise StageError(f"model registry {tracking_uri}: {reason}") from error


class Registry:
    """Versions of one model name."""

    def __init__(self, tracking_uri: str, name: str) -> None:
        self.tracking_uri = tracking_uri
        self.name = name
        self.client = open_client(tracking_uri)

    def get(self, version: str) -> "MlflowVersion":
        """One version by number.

        Raises:
            StageError: there is no such version; the message lists those that are.
        """
        for found in self._versions():
            if str(found.version) == str(version):
                return found
        known = ", ".join(str(v.version) for v in self._versions()) or "none"
        raise StageError(f"{self.name} has no version {version} in {self.tracking_uri}; it has: {known}")

    def by_digest(self, digest: str) -> "MlflowVersion | None":
        """The version that holds this bundle, or None."""
        return next((v for v in self._versions() if v.tags.get(DIGEST_TAG) == digest), None)

    def aliased(self, alias: str) -> str | None:
        """Version number an alias points at, or None."""
        return self._aliases().get(alias)

    def point(self, alias: str, version: str | None) -> None:
        """Set an alias to a version, or take it away when `version` is None."""
        with registry_errors(self.tracking_uri):
            if version is not None:
                self.client.set_registered_model_alias(self.name, alias, version)
            elif self.aliased(alias) is not None:
                self.client.delete_registered_model_alias(self.name, alias)

    def tag(self, version: str, **tags: str) -> None:
        """Write tags onto a version."""
        with registry_errors(self.tracking_uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, version, key, value)

    def mark(self, tag: str, versions: set[str]) -> None:
        """Give these versions a tag, and take it from all others."""
        with registry_errors(self.tracking_uri):
            for found in self._versions():
                number = str(found.version)
                if number in versions and tag not in found.tags:
                    self.client.set_model_version_tag(self.name, number, tag, "true")
                elif number not in versions and tag in found.tags:
                    self.client.delete_model_version_tag(self.name, number, tag)

    def describe(self, version: str) -> ModelVersion:
        """One version as the artifact that passes between stages.

        Raises:
            StageError: there is no such version.
        """
        return _described(self.get(version), self.tracking_uri)

    def summaries(self) -> list[VersionSummary]:
        """All versions, newest first."""
        aliases = self._aliases()
        return [
            _summary(found, tuple(sorted(a for a, v in aliases.items() if v == str(found.version))))
            for found in self._versions()
        ]

    def _versions(self) -> "list[MlflowVersion]":
        with registry_errors(self.tracking_uri):
            found = list(self.client.search_model_versions(f"name='{self.name}'", max_results=10_000))
        return sorted(found, key=lambda v: int(v.version), reverse=True)

    def _aliases(self) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            model = self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise StageError(f"model registry {self.tracking_uri}: {error}") from error
        return {alias: str(version) for alias, version in model.aliases.items()}


def find_aliased(tracking_uri: str, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points at, or None; a file is read without MLflow, which takes seconds to load.

    Raises:
        StageError: the registry cannot be reached.
    """
    found = read_versions(tracking_uri, name)
    if found is None:
        registry = Registry(tracking_uri, name)
        version = registry.aliased(alias)
        return None if version is None else registry.describe(version)
    return next((_described(version, tracking_uri) for version in found if alias in version.aliases), None)


def list_models(tracking_uri: str, name: str) -> list[VersionSummary]:
    """All versions of a model with their aliases, newest first.

    Raises:
        StageError: the registry cannot be reached.
    """
    found = read_versions(tracking_uri, name)
    if found is not None:
        return [_summary(version, version.aliases) for version in found]
    return Registry(tracking_uri, name).summaries()


def _described(found: "MlflowVersion | RegisteredVersion", tracking_uri: str) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        uri=f"models:/{found.name}/{found.version}",
        bundle_digest=found.tags.get(DIGEST_TAG, ""),
        tracking_uri=tracking_uri,
        run_id=found.tags.get("run_id", ""),
        headline=found.tags.get("verdict", ""),
        bundle_uri=found.tags.get("bundle_uri", ""),
        vertex_resource=found.tags.get("vertex_resource", ""),
    )


def _summary(found: "MlflowVersion | RegisteredVersion", aliases: tuple[str, ...]) -> VersionSummary:
    return VersionSummary(
        name=found.name,
        version=str(found.version),
        aliases=aliases,
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        digest=found.tags.get(DIGEST_TAG, ""),
        run_id=found.tags.get("run_id", ""),
        git_sha=found.tags.get("git_sha", ""),
        headline=found.tags.get("verdict", ""),
        metrics={
            key.removeprefix("metric."): float(value)
            for key, value in sorted(found.tags.items())
            if key.startswith("metric.")
        },
        rolled_back=ROLLED_BACK_TAG in found.tags,
        unfinished=UNFINISHED_TAG in found.tags,
    )
