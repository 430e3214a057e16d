"""A version as a new revision of a Cloud Run service that Terraform made."""

import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.failure import StageError
from components.artifacts.google_cloud import connect, google_errors, label, patience
from components.artifacts.model_version import ModelVersion
from components.deploy.config import DeployConfig, api_key
from components.deploy.rollout import Serving, Started, shrunk
from components.deploy.smoke import HttpProber, Prober

if TYPE_CHECKING:
    from google.cloud.run_v2 import Service, TrafficTarget

_log = logging.getLogger(__name__)
_HOST: Final = "run.googleapis.com"
_TAG: Final = "candidate"
_MODEL_SETTINGS: Final = ("MODEL_URI", "MODEL_VERSION", "MLFLOW_TRACKING_URI")


class CloudRunRollout:
    """One revision's way to 100 % of the traffic.

    While it is tried, traffic is held on the revisions that serve by name. Afterwards it follows the latest revision
    again, or whatever split stood before: nothing stays pinned behind the back of the next deployment.
    """

    canary = True

    def __init__(self, version: ModelVersion, config: DeployConfig) -> None:
        from google.cloud import run_v2

        self._version, self._config = version, config
        self._name = f"projects/{config.project}/locations/{config.region}/services/{config.service}"
        with google_errors(f"Cloud Run service {config.service}"):
            self._services = connect(run_v2.ServicesClient, _HOST, config.run_api_endpoint)
        self._revision = f"{config.service[:40]}-v{version.version}-{secrets.token_hex(3)}"
        self._before: Service | None = None
        self._held: list[TrafficTarget] = []
        """The traffic before, by revision name."""

    def start(self) -> Started:
        """Make the revision with 0 % of the traffic and a tag; both in one update, so it never has users.

        Raises:
            StageError: the service is not there, serves nothing yet, or Cloud Run refused.
        """
        from google.cloud import run_v2

        service = self._get()
        held = [
            run_v2.TrafficTarget(
                type_=_by_revision(),
                revision=status.revision or _short(service.latest_ready_revision),
                percent=status.percent,
            )
            for status in service.traffic_statuses
            if status.percent
        ]
        if not held:
            raise StageError(f"Cloud Run service {self._config.service} serves no revision yet; apply Terraform first")
        self._before, self._held = run_v2.Service(run_v2.Service.pb(service)), held
        self._fill(service.template)
        candidate = run_v2.TrafficTarget(type_=_by_revision(), revision=self._revision, percent=0, tag=_TAG)
        service.traffic = [*held, candidate]
        updated = self._update(service, "make the new revision", "template", "traffic")
        urls = [status.uri for status in updated.traffic_statuses if status.tag == _TAG]
        if not urls or not urls[0]:
            raise StageError(f"Cloud Run gave the revision {self._revision} no tag address; nothing was promoted")
        return Started(self._prober(urls[0]), self._version.version)

    def shift(self, percent: int) -> Prober:
        """Move `percent` of the traffic; at 100 it follows the latest revision, which is this one."""
        from google.cloud import run_v2

        service = self._get()
        if percent == 100:
            if _short(service.latest_created_revision) != self._revision:
                raise StageError(
                    f"Cloud Run service {self._config.service}: {_short(service.latest_created_revision)} was made "
                    f"after {self._revision}; deploy again"
                )
            latest = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
            service.traffic = [run_v2.TrafficTarget(type_=latest, percent=100)]
        else:
            mine = run_v2.TrafficTarget(type_=_by_revision(), revision=self._revision, percent=percent, tag=_TAG)
            left = shrunk({target.revision: target.percent for target in self._held}, 100 - percent)
            held = [
                run_v2.TrafficTarget(type_=_by_revision(), revision=name, percent=share)
                for name, share in left.items()
                if share
            ]
            service.traffic = [*held, mine]
        updated = self._update(service, f"shift {percent} % of the traffic", "traffic")
        return self._prober(updated.uri)

    def finish(self) -> Serving:
        """Say where it serves."""
        return Serving(self._get().uri)

    def settle(self) -> None:
        """Nothing to remove: a revision without traffic scales to zero, and is what a rollback would go back to."""

    def restore(self) -> None:
        """Traffic back at once; then the old template again, so that following the latest revision is safe."""
        before = self._before
        if before is None:
            return
        service = self._get()
        replaced = _short(service.latest_created_revision) != _short(before.latest_created_revision)
        if replaced or service.traffic != before.traffic:
            service.traffic = self._held
            service = self._update(service, "give the traffic back", "traffic")
        if replaced:
            service.template = before.template
            service.template.revision = ""  # a name may be used once; Cloud Run gives the next
            service = self._update(service, "bring the old template back", "template")
        if service.traffic != before.traffic:
            service.traffic = before.traffic
            self._update(service, "un-pin the traffic", "traffic")

    def _fill(self, template: Any) -> None:
        from google.cloud import run_v2

        template.revision = self._revision
        template.labels["model-version"] = label(self._version.version)
        template.labels["bundle-digest"] = label(self._version.bundle_digest[:12])
        container = template.containers[0]
        if self._config.image:
            container.image = self._config.image
        settings = {"MODEL_URI": self._version.bundle_uri or self._version.uri, "MODEL_VERSION": self._version.version}
        if not self._version.bundle_uri:
            settings["MLFLOW_TRACKING_URI"] = self._version.tracking_uri
        kept = [variable for variable in container.env if variable.name not in _MODEL_SETTINGS]
        container.env = [*kept, *(run_v2.EnvVar(name=key, value=value) for key, value in settings.items())]

    def _get(self) -> "Service":
        with google_errors(f"read Cloud Run service {self._config.service}"):
            found: Service = self._services.get_service(
                name=self._name, retry=patience(self._config.retry_timeout_s), timeout=self._config.request_timeout_s
            )
        return found

    def _update(self, service: "Service", doing: str, *fields: str) -> "Service":
        with google_errors(f"{doing} of Cloud Run service {self._config.service}"):
            # the etag makes it safe to ask again: an update that did arrive cannot be applied twice
            operation = self._services.update_service(
                request={"service": service, "update_mask": {"paths": list(fields)}},
                retry=patience(self._config.retry_timeout_s),
                timeout=self._config.request_timeout_s,
            )
            updated: Service = operation.result(timeout=self._config.operation_timeout_s)
        return updated

    def _prober(self, url: str) -> HttpProber:
        headers = {"X-API-Key": api_key()} if api_key() else {}
        if self._config.id_token:
            headers["Authorization"] = f"Bearer {_id_token(self._get().uri)}"
        return HttpProber(url, self._config.request_timeout_s, headers)


def _by_revision() -> Any:
    from google.cloud import run_v2

    return run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION


def _short(revision: str) -> str:
    return revision.rpartition("/")[2]


def _id_token(audience: str) -> str:
    from google.auth.transport.requests import Request
    from google.oauth2.id_token import fetch_id_token

    with google_errors("fetch an identity token for the smoke test"):
        return str(fetch_id_token(Request(), audience))  # type: ignore[no-untyped-call] # google-auth is untyped here
