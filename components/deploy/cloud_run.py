"""A version as a new revision of a Cloud Run service that Terraform made."""

import json
import logging
import secrets
import uuid
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.model_version import ModelVersion
from components.deploy.config import DeployConfig
from components.deploy.not_ready import is_ready, refuse_unready, result
from components.deploy.rollout import Serving, Started, shrunk
from components.deploy.smoke import HttpProber, Prober
from components.deploy.smoke_key import smoke_headers
from components.deploy.traffic import by_revision, held_by_name, newest, short, tagged
from components.platform.google_cloud import connect, google_errors, label, patience, reading
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from google.cloud.run_v2 import Service, TrafficTarget

_log = logging.getLogger(__name__)
_HOST: Final = "run.googleapis.com"
CANDIDATE: Final = "candidate"
"""Tag of a version on its way into service."""
PREVIEW: Final = "preview"
"""Label of a revision that only previews an image: its template must not become the base of a deployment."""
_SAMPLE: Final = "us-docker.pkg.dev/cloudrun/container/hello"
_MODEL_SETTINGS: Final = ("MODEL_URI", "MODEL_VERSION", "MODEL_DIGEST", "MLFLOW_TRACKING_URI")


class CloudRunService:
    """The service as Cloud Run's API shows it."""

    def __init__(self, config: DeployConfig) -> None:
        from google.cloud import run_v2

        self.config = config
        self._name = f"projects/{config.project}/locations/{config.region}/services/{config.service}"
        with google_errors(f"Cloud Run service {config.service}"):
            self._services = connect(run_v2.ServicesClient, _HOST, config.run_api_endpoint)

    def get(self) -> "Service":
        """The service now.

        Raises:
            StageError: it is not there, or Cloud Run refused.
        """
        with google_errors(f"read Cloud Run service {self.config.service}"):
            found: Service = self._services.get_service(
                name=self._name, retry=reading(self.config.retry_timeout_s), timeout=self.config.request_timeout_s
            )
        return found

    def update(self, service: "Service", doing: str, *fields: str) -> "Service":
        """Write `fields` of `service` and wait until they hold.

        Raises:
            StageError: Cloud Run refused, or the service changed since it was read.
        """
        doing = f"{doing} of Cloud Run service {self.config.service}"
        with google_errors(doing):
            # the etag makes it safe to ask again: an update that did arrive cannot be applied twice
            operation = self._services.update_service(
                request={"service": service, "update_mask": {"paths": list(fields)}},
                retry=patience(self.config.retry_timeout_s),
                timeout=self.config.request_timeout_s,
            )
            return result(operation, doing, self.get, self.config)

    def bring_back(self, service: "Service", template: Any, traffic: "list[TrafficTarget]") -> "Service":
        """Users' traffic at once, by revision name; then an older template as the newest revision.

        Both in one update where the newest revision never came up: it has no users, and Google may call every update
        failed that leaves it the newest.
        """
        ready = is_ready(service)
        service.traffic = traffic
        if ready:
            service = self.update(service, "give the traffic back", "traffic")
        service.template = template
        service.template.revision = ""  # a name may be used once; Cloud Run gives the next
        return self.update(service, "bring the old template back", *(() if ready else ("traffic",)), "template")

    def prober(self, url: str) -> HttpProber:
        """A prober of one address of the service."""
        headers = smoke_headers(self.config)
        if self.config.id_token:
            headers["Authorization"] = f"Bearer {_id_token(self.get().uri)}"
        return HttpProber(url, self.config.request_timeout_s, headers)

    def ask_rights(self) -> None:
        """Ask, before an update is sent, for what it needs once accepted: its operation, and the smoke test's key.

        A grant on the service does not reach the operation, which stands beside it in the project; without leave to
        look at it, an update that was carried out could neither be waited for nor taken back.

        Raises:
            StageError: names what is missing.
        """
        from google.api_core.exceptions import Forbidden, GoogleAPICallError

        config = self.config
        smoke_headers(config)
        nothing = f"projects/{config.project}/locations/{config.region}/operations/{uuid.uuid4()}"
        try:
            self._services.transport.operations_client.get_operation(
                nothing, retry=patience(config.retry_timeout_s), timeout=config.request_timeout_s
            )
        except Forbidden as error:
            raise StageError(
                f"look at the operations of Cloud Run in {config.project}: 403 {error.message}; grant "
                "run.operations.get on the project (Terraform's module iam does): one on the service does not do"
            ) from error
        except GoogleAPICallError:
            return  # there is no such operation, and that could be seen

    def start(self, service: "Service", version: ModelVersion, tag: str) -> tuple[str, HttpProber]:
        """Make a revision with 0 % of the traffic and a tag; both in one update, so it never has users.

        Cloud Run names it: a name of ours would stay in the template, and whoever changes that next would be refused.

        Args:
            service: as read just now, its template changed where the revision differs; becomes what is sent.
            version: the version that the revision serves.
            tag: its tag, taken from whichever revision has it.

        Returns:
            The revision's name and a prober of the tag's address.
        """
        self.fill(service.template, version)
        service.traffic = [*held_by_name(service, self.config), *tagged(service, tag), newest(0, tag)]
        updated = self.update(service, "make the new revision", "template", "traffic")
        revision = short(updated.latest_created_revision)
        urls = [status.uri for status in updated.traffic_statuses if status.tag == tag]
        if not urls or not urls[0]:
            raise StageError(f"Cloud Run gave the revision {revision} no tag address; nothing was promoted")
        return revision, self.prober(urls[0])

    def fill(self, template: Any, version: ModelVersion) -> None:
        """Make a template that of a version, with all else it holds as it is."""
        from google.cloud import run_v2

        template.revision = ""
        # the same image and model again would be no change to Cloud Run, and make no revision
        template.labels["attempt"] = secrets.token_hex(3)
        template.labels["model-version"] = label(version.version)
        template.labels["bundle-digest"] = label(version.bundle_digest[:12])
        container = template.containers[0]
        container.image = self.image(template)
        settings = {
            "MODEL_URI": version.bundle_uri or version.uri,
            "MODEL_VERSION": version.version,
            "MODEL_DIGEST": version.bundle_digest,
        }
        if not version.bundle_uri:
            settings["MLFLOW_TRACKING_URI"] = version.tracking_uri
        kept = [variable for variable in container.env if variable.name not in _MODEL_SETTINGS]
        container.env = [*kept, *(run_v2.EnvVar(name=key, value=value) for key, value in settings.items())]

    def image(self, template: Any) -> str:
        """The image of the next revision.

        Raises:
            StageError: the service runs Terraform's sample still, and no image is known to take its place.
        """
        config, now = self.config, str(template.containers[0].image)
        if config.image or not is_sample(now):
            return config.image or now
        if not config.first_image:
            raise StageError(
                f"Cloud Run service {config.service} still runs the sample that Terraform made it with; give the first "
                "release its image: aidetect deploy --image NAME@sha256:..., or pin images.serving"
            )
        return config.first_image


class CloudRunRollout:
    """One revision's way to 100 % of the traffic.

    While it is tried, traffic is held on the revisions that serve by name. Afterwards it follows the latest revision
    again, or whatever split stood before: nothing stays pinned behind the back of the next deployment. Tags of other
    revisions, such as previews, stay where they are.
    """

    canary = True

    def __init__(self, version: ModelVersion, config: DeployConfig) -> None:
        self._version, self._config = version, config
        self._service = CloudRunService(config)
        self._revision = ""
        self._before: Service | None = None
        self._held: list[TrafficTarget] = []
        """The traffic before, by revision name."""
        self.images = ("", "")

    def begin(self) -> str:
        """Read the service.

        Raises:
            StageError: it is not there, serves nothing yet, or its template is a preview's.
        """
        service = self._service.get()
        self._service.ask_rights()
        if not self._config.image:
            refuse_preview(service, self._config)
            refuse_unready(service, self._config)
        self._before, self._held = copied(service), held_by_name(service, self._config)
        image = service.template.containers[0].image
        # the template that a preview left is not the one users get, and nothing leads back to the sample
        before = "" if PREVIEW in service.template.labels or is_sample(image) else image
        self.images = (before, self._service.image(service.template))
        return json.dumps(
            {
                "latest": service.latest_created_revision,
                "ready": service.latest_ready_revision,
                "image": image,
                "traffic": [_as_dict(target) for target in service.traffic],
                "held": [_as_dict(target) for target in self._held],
            }
        )

    def resume(self, begun: str, serving: ModelVersion | None) -> None:
        """Take up the service as a rollout that was cut short found it.

        Its template is made anew from the champion: what is written down before a rollout holds no settings, which may
        be secret.
        """
        from google.cloud import run_v2

        memory = json.loads(begun)
        self._held = [run_v2.TrafficTarget(target) for target in memory["held"]]
        before = self._service.get()
        if serving is None:
            # nobody knows what the template was: users stay, by name, on what served them
            before.traffic = self._held
        else:
            before.latest_created_revision = memory["latest"]
            before.latest_ready_revision = memory.get("ready", memory["latest"])
            before.traffic = [run_v2.TrafficTarget(target) for target in memory["traffic"]]
            before.template.labels.pop(PREVIEW, None)
            self._service.fill(before.template, serving)
            before.template.containers[0].image = memory["image"]
        self._before = before

    def start(self) -> Started:
        """Make the revision with 0 % of the traffic and a tag.

        Raises:
            StageError: Cloud Run refused.
        """
        assert self._before is not None
        service = copied(self._before)
        service.template.labels.pop(PREVIEW, None)
        self._revision, prober = self._service.start(service, self._version, CANDIDATE)
        return Started(prober, self._version.version)

    def shift(self, percent: int) -> Prober:
        """Move `percent` of the traffic; at 100 it follows the latest revision, which is this one."""
        from google.cloud import run_v2

        service = self._service.get()
        if percent == 100:
            if short(service.latest_created_revision) != self._revision:
                raise StageError(
                    f"Cloud Run service {self._config.service}: {short(service.latest_created_revision)} was made "
                    f"after {self._revision}; deploy again"
                )
            service.traffic = [newest(100), *tagged(service, CANDIDATE)]
        else:
            mine = run_v2.TrafficTarget(type_=by_revision(), revision=self._revision, percent=percent, tag=CANDIDATE)
            left = shrunk({target.revision: target.percent for target in self._held}, 100 - percent)
            held = [
                run_v2.TrafficTarget(type_=by_revision(), revision=name, percent=share)
                for name, share in left.items()
                if share
            ]
            service.traffic = [*held, *tagged(service, CANDIDATE), mine]
        updated = self._service.update(service, f"shift {percent} % of the traffic", "traffic")
        return self._service.prober(updated.uri)

    def finish(self) -> Serving:
        """Say where it serves."""
        return Serving(self._service.get().uri)

    def settle(self) -> None:
        """Nothing to remove: a revision without traffic scales to zero, and is what a rollback would go back to."""

    def restore(self) -> None:
        """Traffic back at once; then the old template again, so that following the latest revision is safe."""
        before = self._before
        if before is None:
            return
        service = self._service.get()
        replaced = short(service.latest_created_revision) != short(before.latest_created_revision)
        held = [*self._held, *tagged(before, CANDIDATE)]
        if replaced and not is_ready(before):
            # its template never came up: nothing to bring back, and traffic that follows the newest stays off
            if is_ready(service) and service.traffic != held:
                service.traffic = held
                self._service.update(service, "give the traffic back", "traffic")
            return
        if replaced:
            service = self._service.bring_back(service, before.template, held)
        if service.traffic != before.traffic:
            service.traffic = before.traffic
            self._service.update(service, "un-pin the traffic", "traffic")


def is_sample(image: str) -> bool:
    """Whether an image is the sample that Terraform's first apply puts in place of one that is not built yet."""
    return image.startswith(_SAMPLE)


def _as_dict(target: "TrafficTarget") -> dict[str, Any]:
    found: dict[str, Any] = type(target).to_dict(target)
    return {name: value for name, value in found.items() if value}


def copied(service: "Service") -> "Service":
    """The service as it is, whatever is done to the original."""
    from google.cloud import run_v2

    return run_v2.Service(run_v2.Service.pb(service))


def refuse_preview(service: "Service", config: DeployConfig) -> None:
    """Raise StageError while the service's template is that of a preview: its image is not the one users get."""
    tag = service.template.labels.get(PREVIEW)
    if tag:
        raise StageError(
            f"the newest revision of Cloud Run service {config.service} is the preview {tag}, under way or cut short; "
            "wait for it, or put the service right with: aidetect deploy --image IMAGE"
        )


def _id_token(audience: str) -> str:
    from google.auth.transport.requests import Request
    from google.oauth2.id_token import fetch_id_token

    with google_errors("fetch an identity token for the smoke test"):
        return str(fetch_id_token(Request(), audience))  # type: ignore[no-untyped-call] # google-auth is untyped here
