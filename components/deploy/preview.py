"""Trials that promote nothing: a tagged preview of an image without users, and the smoke test of a running service.

A preview borrows the service's template for its revision and gives it back: when it is done, traffic and the newest
revision are what they were, plus the tag. The champion's alias and the promotion ledger are not touched.
"""

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

from components.artifacts.model_version import CHAMPION, ModelVersion
from components.deploy.cloud_run import CANDIDATE, PREVIEW, CloudRunService, copied, refuse_preview
from components.deploy.config import DeployConfig
from components.deploy.ledger import Ledger
from components.deploy.promotion import approved_examples, taking_back
from components.deploy.smoke import HttpProber, SmokeReport, smoke
from components.deploy.smoke_key import smoke_headers
from components.deploy.traffic import held_by_name, short, tag_target, tagged
from components.platform.registry import find_aliased
from components.platform.signals import sigterm_raises
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from google.cloud.run_v2 import Service, TrafficTarget

_TAG: Final = re.compile(r"[a-z][a-z0-9-]{0,44}[a-z0-9]")


class Preview(BaseModel):
    """A revision that is reached by its tag's address and has no users."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    tag: str
    url: str
    revision: str
    image: str
    name: str
    version: str
    smoke: str
    """One line: what was replayed and how far the answers were off."""


def champion(tracking_uri: str, name: str) -> ModelVersion:
    """The version that serves users.

    Raises:
        StageError: there is none.
    """
    version = find_aliased(tracking_uri, name, CHAMPION)
    if version is None:
        raise StageError(f"{name} has no champion in {tracking_uri}; make one with: aidetect run")
    return version


def champion_by_ledger(config: DeployConfig, name: str, bundles: str) -> ModelVersion:
    """The version that serves users, as the ledger and the bucket tell it: a preview needs no way into the registry.

    Args:
        config: names the ledger.
        name: of the model.
        bundles: `gs://bucket/folder` under which bundles are kept as `{model}/{digest}`.

    Raises:
        StageError: nothing was promoted yet, or the ledger cannot be read.
    """
    promoted = [e for e in Ledger(config.ledger_path).entries() if e.model == name and e.outcome == "promoted"]
    if not promoted:
        raise StageError(f"{config.ledger_path} knows no champion of {name}; deploy one with: aidetect deploy")
    last = promoted[-1]
    uri = f"{bundles.rstrip('/')}/{name}/{last.bundle_digest}"
    return ModelVersion(
        name=name,
        version=last.to_version,
        uri=uri,
        bundle_digest=last.bundle_digest,
        tracking_uri="",
        run_id=last.run_id,
        headline=last.verdict,
        bundle_uri=uri,
    )


def smoke_service(url: str, version: ModelVersion, config: DeployConfig) -> SmokeReport:
    """Replay a version's golden images against a service that runs.

    Raises:
        StageError: another version answers, or the answers are not those recorded.
    """
    if config.target == "cloud_run" and config.id_token:
        prober = CloudRunService(config).prober(url)
    else:
        prober = HttpProber(url, config.request_timeout_s, smoke_headers(config))
    with tempfile.TemporaryDirectory() as scratch:
        examples = approved_examples(version, Path(scratch))
        return smoke(
            prober,
            examples,
            version.version,
            config.probability_tolerance,
            config.smoke_timeout_s,
            0.0 if config.target == "local" else config.traffic_settle_s,
        )


def deploy_preview(version: ModelVersion, config: DeployConfig, tag: str) -> Preview:
    """Make a revision of `config.image` at 0 % of the traffic under `tag`, and smoke-test it there.

    Raises:
        StageError: the target has no tags, a rollout is under way, or the smoke test failed; traffic and template are
            as before, and nothing has the tag.
    """
    _check(config, tag)
    with tempfile.TemporaryDirectory() as scratch:
        examples = approved_examples(version, Path(scratch))
    trial = _Trial(version, config, tag)
    with sigterm_raises(), ExitStack() as undo:
        undo.push(taking_back(lambda: trial.put_back(keep_tag=False)))
        prober = trial.start()
        report = smoke(prober, examples, version.version, config.probability_tolerance, config.smoke_timeout_s)
        trial.put_back(keep_tag=True)
        undo.pop_all()
    return Preview(
        tag=tag,
        url=prober.url,
        revision=trial.revision,
        image=config.image,
        name=version.name,
        version=version.version,
        smoke=report.sentence,
    )


def remove_tag(config: DeployConfig, tag: str) -> bool:
    """Take a tag away; False when no revision had it.

    Raises:
        StageError: the target has no tags, or Cloud Run refused.
    """
    _check(config, tag)
    cloud = CloudRunService(config)
    service = cloud.get()
    if all(target.tag != tag for target in service.traffic):
        return False
    _without_users(service, tag)
    service.traffic = [target for target in service.traffic if target.tag != tag]
    cloud.update(service, f"remove the tag {tag}", "traffic")
    return True


class _Trial:
    """One preview's hold of the service."""

    def __init__(self, version: ModelVersion, config: DeployConfig, tag: str) -> None:
        self._version, self._tag = version, tag
        self._cloud = CloudRunService(config)
        self.revision = ""
        self._before: Service | None = None
        self._held: list[TrafficTarget] = []
        """Users' traffic before, by revision name."""

    def start(self) -> HttpProber:
        service = self._cloud.get()
        self._cloud.ask_rights()
        refuse_preview(service, self._cloud.config)
        _without_users(service, self._tag)
        if any(target.tag == CANDIDATE for target in service.traffic):
            raise StageError(
                f"a deployment of Cloud Run service {self._cloud.config.service} is under way; preview after it"
            )
        self._before, self._held = copied(service), held_by_name(service, self._cloud.config)
        service.template.labels[PREVIEW] = self._tag
        self.revision, prober = self._cloud.start(service, self._version, self._tag)
        return prober

    def put_back(self, *, keep_tag: bool) -> None:
        """The old template as the newest revision while users are held by name; then their traffic as it was."""
        before = self._before
        if before is None:
            return
        mine = [tag_target(self.revision, self._tag)] if keep_tag else []
        service = self._cloud.get()
        if self._overtaken(service, before):
            self._set_traffic(service, [*(t for t in service.traffic if t.tag != self._tag), *mine])
            return
        if service.template.labels.get(PREVIEW) == self._tag:
            held = [*self._held, *tagged(service, self._tag), *mine]
            service = self._cloud.bring_back(service, before.template, held)
        users = [target for target in before.traffic if target.percent]
        self._set_traffic(service, [*users, *tagged(service, self._tag), *mine])

    def _overtaken(self, service: "Service", before: "Service") -> bool:
        """Whether somebody deployed meanwhile: then template and traffic are theirs."""
        newest = short(service.latest_created_revision)
        if newest in (self.revision, short(before.latest_created_revision)):
            return False
        ours = service.template.labels.get(PREVIEW) == self._tag
        returned = service.template.containers == before.template.containers
        return not ours and not returned

    def _set_traffic(self, service: "Service", targets: "list[TrafficTarget]") -> "Service":
        if list(service.traffic) == targets:
            return service
        service.traffic = targets
        return self._cloud.update(service, "set the traffic", "traffic")


def _check(config: DeployConfig, tag: str) -> None:
    if config.target != "cloud_run":
        raise StageError(f"previews need deploy.target cloud_run; it is {config.target} here")
    if not _TAG.fullmatch(tag) or tag == CANDIDATE:
        raise StageError(
            f"tag {tag!r}: use 2 to 46 lower-case letters, digits and hyphens, beginning with a letter, "
            f"and not {CANDIDATE}"
        )


def _without_users(service: "Service", tag: str) -> None:
    if any(target.tag == tag and target.percent for target in service.traffic):
        raise StageError(f"the revision tagged {tag} of {short(service.name)} has users; it is no preview")
