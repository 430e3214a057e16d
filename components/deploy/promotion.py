"""Bring a version into service: try it without users, shift traffic, make it champion, write it down.

Whatever goes wrong, the champion, the traffic and the running servers are afterwards as they were before.
"""

import logging
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from components.artifacts.deployment import Deployment
from components.artifacts.evaluation import read_evaluation
from components.artifacts.model_version import CHAMPION, MODEL_VERSION_JSON, ModelVersion, read_release
from components.artifacts.verdict import VERDICT_JSON, read_verdict
from components.deploy.config import DeployConfig
from components.deploy.ledger import Action, History, Ledger, LedgerEntry, Outcome
from components.deploy.rollout import Rollout
from components.deploy.smoke import Example, Prober, SmokeReport, answer_within, golden_examples, smoke
from components.deploy.vertex_aliases import VertexAliases
from components.platform.registry import ROLLED_BACK_TAG, Registry
from components.platform.signals import sigterm_raises
from serving.detector.bundle import RELEASE, verify
from serving.platform.account import user_name
from serving.platform.errors import BundleError, ModelNotFoundError, StageError, one_line
from serving.registry import resolve

_log = logging.getLogger(__name__)
_CANARY_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Who wants a version in service, and why."""

    who: str
    why: str
    action: Action = "deploy"


class _Promotion:
    """One attempt; holds what its steps share."""

    def __init__(
        self, desk: "Desk", version: ModelVersion, config: DeployConfig, reason: Reason, champion: str | None
    ) -> None:
        self.registry, self.ledger = desk.registry, desk.ledger
        self.version, self.config, self.reason, self.before = version, config, reason, champion
        self.attempt = uuid.uuid4().hex
        self.images = ("", "")
        """Serving image before and after."""

    def run(self) -> Deployment:
        try:
            with tempfile.TemporaryDirectory() as scratch, ExitStack() as undo:
                deployment, rollout = self._attempt(Path(scratch), undo)
                undo.pop_all()
        except BaseException as error:
            self._record("rolled_back", one_line(error))
            raise
        rollout.settle()
        return deployment

    def _attempt(self, scratch: Path, undo: ExitStack) -> tuple[Deployment, Rollout]:
        examples = approved_examples(self.version, scratch)
        if self.version.vertex_resource:
            VertexAliases(self.version.vertex_resource, self.config).ask_rights()
        rollout = open_rollout(self.version, self.config, scratch)
        taken_back_by = rollout.begin()
        self.images = rollout.images
        self._record("begun", "", taken_back_by)
        undo.push(taking_back(rollout.restore))
        started = rollout.start()
        report = self._smoke(started.prober, examples, started.answers_as)
        if rollout.canary:
            self._shift(rollout, examples, started.answers_as)
        serving = rollout.finish()
        self._crown(undo)
        deployment = Deployment(
            target=self.config.target,
            name=self.version.name,
            version=self.version.version,
            previous=self.before,
            smoke=report.sentence,
            url=serving.url,
            pid=serving.pid,
        )
        return deployment, rollout

    def _smoke(self, prober: Prober, examples: list[Example], version: str, settle_s: float = 0.0) -> SmokeReport:
        config = self.config
        return smoke(prober, examples, version, config.probability_tolerance, config.smoke_timeout_s, settle_s)

    def _shift(self, rollout: Rollout, examples: list[Example], version: str) -> None:
        if self.config.canary_percent:
            prober = rollout.shift(self.config.canary_percent)
            self._watch(prober, examples)
        self._smoke(rollout.shift(100), examples, version, self.config.traffic_settle_s)

    def _watch(self, prober: Prober, examples: list[Example]) -> None:
        """Ask the shared address until the hold is over: whichever version answers, it must answer."""
        end = time.monotonic() + self.config.canary_hold_s
        while True:
            for example in examples:
                answer = answer_within(prober, example, self.config.smoke_timeout_s)
                _log.debug("canary: %s answered by version %s", example.name, answer.version)
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _CANARY_PAUSE_S))

    def _crown(self, undo: ExitStack) -> None:
        """Move the alias and write the line; either both stand, or neither."""
        now = self.registry.aliased(CHAMPION)
        if now != self.before:
            raise StageError(
                f"the champion changed from {self.before} to {now} meanwhile; deploy again if still wanted"
            )
        undo.push(taking_back(lambda: self.registry.point(CHAMPION, self.before)))
        self.registry.point(CHAMPION, self.version.version)
        if self.version.vertex_resource:
            aliases = VertexAliases(self.version.vertex_resource, self.config)
            undo.push(taking_back(aliases.restore))
            aliases.move()
        self._record("promoted", "")

    def _record(self, outcome: Outcome, reason: str, taken_back_by: str = "") -> None:
        self.ledger.append(
            LedgerEntry(
                who=self.reason.who,
                action=self.reason.action,
                why=self.reason.why,
                target=self.config.target,
                model=self.version.name,
                from_version=self.before,
                to_version=self.version.version,
                from_image=self.images[0],
                to_image=self.images[1],
                bundle_digest=self.version.bundle_digest,
                verdict=self.version.headline,
                outcome=outcome,
                reason=reason,
                run_id=self.version.run_id,
                attempt=self.attempt,
                undo=taken_back_by,
            )
        )


class Desk:
    """Where it is decided who serves: one decision at a time, each begun by finishing what was cut short."""

    def __init__(self, tracking_uri: str, name: str, config: DeployConfig) -> None:
        self.registry = Registry(tracking_uri, name)
        self.ledger = Ledger(config.ledger_path)
        self.config = config
        self.history = History([], name)

    def decide(
        self, reason: Reason, choose: Callable[["Desk", str | None], tuple[ModelVersion, DeployConfig]]
    ) -> Deployment:
        """Promote what `choose` says once everybody else is out and the history is whole.

        Raises:
            StageError: it is not served; champion and traffic are as before, and the ledger says why.
        """
        self.ledger.check()
        with sigterm_raises(), self.ledger.exclusive(self.config.lock_wait_s):
            self._reconcile()
            champion = self.registry.aliased(CHAMPION)
            version, config = choose(self, champion)
            deployment = _Promotion(self, version, config, reason, champion).run()
            self._look()
        return deployment

    def _look(self) -> None:
        self.history = History(self.ledger.lines(), self.registry.name)
        self.registry.mark(ROLLED_BACK_TAG, self.history.withdrawn)

    def _reconcile(self) -> None:
        """Finish attempts that ended without a word, as a killed process does; the champion's alias is the truth."""
        self._look()
        for begun in self.history.unfinished:
            age_s = (datetime.now(UTC) - datetime.fromisoformat(begun.at)).total_seconds()
            if not self.ledger.held and age_s < self.config.operation_timeout_s:
                raise StageError(
                    f"{begun.who} began to {begun.action} version {begun.to_version} {age_s:.0f} s ago and has not "
                    f"ended; wait for it, or {self.config.operation_timeout_s - age_s:.0f} s if it was killed"
                )
            if begun.target != self.config.target:
                raise StageError(
                    f"an attempt to {begun.action} version {begun.to_version} at {begun.target} was cut short; "
                    f"finish it first with a profile of that target: aidetect deploy --profile ..."
                )
            self._conclude(begun)
        if self.history.unfinished:
            self._look()

    def _conclude(self, begun: LedgerEntry) -> None:
        champion = self.registry.aliased(CHAMPION)
        serving = None if champion is None else self.registry.describe(champion)
        served = champion == begun.to_version != begun.from_version
        with tempfile.TemporaryDirectory() as scratch:
            rollout = open_rollout(self._version(begun), self.config, Path(scratch))
            rollout.resume(begun.undo, serving)
            if served:
                rollout.settle()
            else:
                rollout.restore()
        if serving is not None and serving.vertex_resource:
            VertexAliases(serving.vertex_resource, self.config).move()
        outcome: Outcome = "promoted" if served else "rolled_back"
        told = "cut short after it had become champion" if served else "cut short; everything begun was taken back"
        _log.warning("the attempt to %s version %s was %s", begun.action, begun.to_version, told)
        line = begun.model_dump(exclude={"at"}) | {"outcome": outcome, "reason": told, "undo": ""}
        self.ledger.append(LedgerEntry.model_validate(line))

    def _version(self, begun: LedgerEntry) -> ModelVersion:
        try:
            return self.registry.describe(begun.to_version)
        except StageError:  # deleted meanwhile: what the ledger knows of it is enough to take it back
            name, number = begun.model, begun.to_version
            return ModelVersion(
                name=name,
                version=number,
                uri=f"models:/{name}/{number}",
                bundle_digest=begun.bundle_digest,
                tracking_uri=self.registry.tracking_uri,
                run_id=begun.run_id,
                headline=begun.verdict,
            )


def deploy_version(version: ModelVersion, config: DeployConfig, reason: Reason) -> Deployment:
    """Try a registered version at the configured target; on success it serves and is champion.

    Raises:
        StageError: it is not served; champion and traffic are as before, and the ledger says why.
    """

    def choose(desk: Desk, champion: str | None) -> tuple[ModelVersion, DeployConfig]:
        standing = desk.registry.describe(version.version)
        for name in ("bundle_digest", "uri", "bundle_uri", "vertex_resource"):
            recorded, said = getattr(standing, name), getattr(version, name)
            if recorded and recorded != said:
                raise StageError(
                    f"{MODEL_VERSION_JSON} says {name} {said}, the registry says {recorded} of {standing.uri}: "
                    "it was edited, or is of another registry; register again"
                )
        if version.version in desk.history.withdrawn and version.version != champion:
            raise StageError(
                f"{version.name} version {version.version} was rolled back; only its number brings it back: "
                f"aidetect promote {version.version}"
            )
        return version, config

    return Desk(version.tracking_uri, version.name, config).decide(reason, choose)


def promote(tracking_uri: str, name: str, version: str, config: DeployConfig, why: str, who: str = "") -> Deployment:
    """Make one version of the registry champion, after the same trial as a new one.

    Raises:
        StageError: no such version, it never passed the gate, or its trial failed.
    """
    reason = Reason(who or user_name(), why, "promote")
    return Desk(tracking_uri, name, config).decide(reason, lambda desk, _: (desk.registry.describe(version), config))


def rollback(tracking_uri: str, name: str, config: DeployConfig, why: str, who: str = "") -> Deployment:
    """Bring back the version and the serving image before the latest promotion, by the ledger, after the same trial.

    What is taken out of service is marked: no later rollback or deployment leads back to it.

    Raises:
        StageError: there is no champion, or none before it that was not rolled back itself; or the trial failed.
    """

    def choose(desk: Desk, champion: str | None) -> tuple[ModelVersion, DeployConfig]:
        if champion is None:
            raise StageError(f"{name} has no champion in {tracking_uri}: nothing to roll back")
        before = desk.history.before(champion)
        if before is None:
            known = f"the ledger {config.ledger_path} knows no champion of {name} before version {champion}"
            raise StageError(f"{known}; bring another version (aidetect models) by: aidetect promote NUMBER")
        taken_back = bool(before.image) and before.image != desk.history.image
        # an image that is taken back must not serve the older model either
        on = config.model_copy(update={"image": before.image}) if taken_back else config
        return desk.registry.describe(before.version), on

    return Desk(tracking_uri, name, config).decide(Reason(who or user_name(), why, "rollback"), choose)


def open_rollout(version: ModelVersion, config: DeployConfig, scratch: Path) -> Rollout:
    """The adapter of the configured target."""
    if config.target == "cloud_run":
        from components.deploy.cloud_run import CloudRunRollout

        return CloudRunRollout(version, config)
    if config.target == "vertex_endpoint":
        from components.deploy.vertex_endpoint import VertexEndpointRollout

        return VertexEndpointRollout(version, config)
    from components.deploy.local import LocalRollout

    return LocalRollout(version, config, scratch)


def approved_examples(version: ModelVersion, scratch: Path) -> list[Example]:
    """Golden images of the version as the registry holds it, once it is sure that it passed the gate.

    Args:
        version: the version.
        scratch: folder for the download.

    Raises:
        StageError: it cannot be had, or holds no verdict that passed.
    """
    try:
        folder = resolve(version.uri, scratch / "bundles", version.tracking_uri).folder
        manifest = verify(folder)
    except (ModelNotFoundError, BundleError) as error:
        raise StageError(f"{version.uri} cannot be deployed: {error}") from error
    release = read_release(folder)
    verdict = read_verdict(folder / RELEASE) if (folder / RELEASE / VERDICT_JSON).is_file() else None
    if verdict is None or not verdict.passed:
        raise StageError(f"{version.uri} cannot be deployed: it holds no verdict of the gate that passed")
    if read_evaluation(folder / RELEASE).digest != verdict.evaluation_sha256:
        raise StageError(f"{version.uri} cannot be deployed: its verdict is of another evaluation; run: aidetect run")
    if {manifest.digest, release.bundle_digest, verdict.bundle_digest} != {version.bundle_digest}:
        raise StageError(f"{version.uri} cannot be deployed: its bundle is not the one that was judged and registered")
    return golden_examples(folder, manifest)


def taking_back(action: Callable[[], None]) -> Callable[..., None]:
    """An exit callback; a failure while taking back is told beside the one that made it necessary, not instead."""

    def leave(_kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            action()
        except StageError as second:
            first = one_line(error) if error else "stopped"
            raise StageError(f"{first}; and the rollback failed too, see to it by hand: {second}") from error

    return leave
