"""The aliases of a promoted version in Vertex Model Registry: `champion`, and `default` for whoever names none."""

from typing import Any, Final

from components.artifacts.model_version import CHAMPION
from components.deploy.config import DeployConfig
from components.platform.google_cloud import connect, google_errors, patience

_PROMOTED: Final = (CHAMPION, "default")


class VertexAliases:
    """Moves both aliases to one version, and back to the versions that had them."""

    def __init__(self, resource: str, config: DeployConfig) -> None:
        from google.cloud import aiplatform_v1

        self._model, _, self._version = resource.partition("@")
        self._options = {"retry": patience(config.retry_timeout_s), "timeout": config.request_timeout_s}
        # the region stands in the name: projects/P/locations/REGION/models/M
        host = f"{resource.split('/')[3]}-aiplatform.googleapis.com"
        with google_errors("Vertex Model Registry"):
            self._client = connect(aiplatform_v1.ModelServiceClient, host, config.vertex_api_endpoint)
        self._before: dict[str, str] = {}

    def ask_rights(self) -> None:
        """Ask for leave to move aliases before users' traffic moves: one alias is given to the version that has it.

        Raises:
            StageError: these credentials may not.
        """
        for alias, version in self._standing().items():
            self._merge(version, [alias])
            return

    def move(self) -> None:
        """Point both aliases at the version."""
        self._before |= self._standing()
        self._merge(self._version, list(_PROMOTED))

    def restore(self) -> None:
        """Give the aliases back; `champion` is taken away where no version had it."""
        for alias, version in self._before.items():
            self._merge(version, [alias])
        if self._before and CHAMPION not in self._before:
            self._merge(self._version, [f"-{CHAMPION}"])

    def _standing(self) -> dict[str, str]:
        with google_errors("read Vertex Model Registry"):
            listed = self._client.list_model_versions(name=self._model, **self._options)
            return {
                alias: found.version_id for found in listed for alias in _PROMOTED if alias in found.version_aliases
            }

    def _merge(self, version: str, aliases: list[str]) -> Any:
        with google_errors("move the aliases in Vertex Model Registry"):
            return self._client.merge_version_aliases(
                name=f"{self._model}@{version}", version_aliases=aliases, **self._options
            )
