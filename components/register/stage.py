"""Register a bundle that passed the gate as a new version: all of it, or nothing."""

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.context import RunContext
from components.artifacts.evaluation import EVALUATION_JSON, Evaluation
from components.artifacts.model_version import (
    CHALLENGER,
    CHAMPION,
    RELEASE_JSON,
    ModelVersion,
    Release,
    write_model_version,
)
from components.artifacts.verdict import VERDICT_JSON, GateVerdict, read_verdict
from components.evaluate.recount import check_figures
from components.platform.registry import Registry
from components.platform.signals import sigterm_raises
from components.quality_gate.config import GateConfig
from components.quality_gate.policy import judge
from components.register import mlflow, model_card, vertex
from components.register.config import RegisterConfig
from serving.detector.bundle import MODEL_CARD, Manifest, verify
from serving.platform.errors import BundleError, StageError
from serving.registry import UNFINISHED_TAG

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Passed:
    """What went through the gate, as three folders, and the policy that the gate was given."""

    bundle: Path
    evaluation: Path
    verdict: Path
    policy: GateConfig


def register(passed: Passed, config: RegisterConfig, context: RunContext, output: Path) -> ModelVersion:
    """Make a version of a bundle with its release record, alias it `challenger`, and write `output`.

    Nothing is believed: the evaluation is held against its own verdicts and judged again. Registering a bundle that is
    registered already returns the version that stands, and finishes one that a killed process left half registered.

    Raises:
        StageError: the bundle is damaged, the verdict refuses it or is not what the gate says of this bundle and
            evaluation, or the registry failed; in every case no version and no alias is left behind.
    """
    try:
        return _register(passed, config, context, output)
    except OSError as error:
        raise StageError(f"not registered, nothing is left of it: {error}") from error


def _register(passed: Passed, config: RegisterConfig, context: RunContext, output: Path) -> ModelVersion:
    manifest, figures, judged = _checked(passed)
    bundle = passed.bundle
    registry = Registry(context.tracking_uri, context.model_name)
    standing = registry.by_digest(manifest.digest)
    with sigterm_raises(), tempfile.TemporaryDirectory() as scratch, ExitStack() as undo:
        release_dir = Path(scratch)
        release = write_release(release_dir, manifest, figures, judged, context)
        if standing is None:
            draft = mlflow.begin(registry, context, manifest.digest)
            undo.callback(draft.discard)
            number = mlflow.create(draft, bundle, release_dir, release)
        else:
            number = str(standing.version)
            if UNFINISHED_TAG in standing.tags:
                _log.warning("version %s was left half registered, as by a killed process; it is finished now", number)
        if config.vertex:
            published = vertex.publish(bundle, release_dir, figures, release, number, config, context, undo)
            registry.tag(number, bundle_uri=published.bundle_uri, vertex_resource=published.resource)
        mlflow.finish(registry, number)
        if registry.aliased(CHAMPION) != number:
            undo.callback(registry.point, CHALLENGER, registry.aliased(CHALLENGER))
            registry.point(CHALLENGER, number)
        version = registry.describe(number)
        write_model_version(output, version)
        undo.pop_all()
    return version


def _checked(passed: Passed) -> tuple[Manifest, Evaluation, GateVerdict]:
    """The three documents, once it is sure that they belong together and that the gate says so."""
    try:
        manifest, evaluation = verify(passed.bundle), check_figures(passed.evaluation)
        verdict = read_verdict(passed.verdict)
    except (BundleError, StageError) as error:
        raise StageError(f"not registered: {error}") from error
    for name, digest in (("verdict", verdict.bundle_digest), ("evaluation", evaluation.bundle_digest)):
        if digest != manifest.digest:
            raise StageError(
                f"not registered: the {name} is of bundle {digest[:12]}, this is {manifest.digest[:12]}; "
                "evaluate and judge this very bundle"
            )
    again = judge(evaluation, passed.policy)
    for name in ("evaluation_sha256", "policy", "passed", "checks", "headline"):
        if getattr(verdict, name) != getattr(again, name):
            raise StageError(
                f"not registered: the verdict's {name} is not what the gate says of this evaluation under this run's "
                f"policy ({again.headline}); evaluation, verdict or policy were changed: run the gate again"
            )
    if not again.passed:
        raise StageError(f"not registered: the gate did not pass it ({again.headline})")
    return manifest, evaluation, verdict


def write_release(
    folder: Path, manifest: Manifest, evaluation: Evaluation, verdict: GateVerdict, context: RunContext
) -> Release:
    """Write the four files of `release/` into `folder`."""
    release = Release(
        bundle_digest=manifest.digest,
        run_id=context.run_id,
        git_sha=context.git_sha,
        data_fingerprint=evaluation.data_fingerprint,
        metrics=evaluation.test.metrics,
        verdict=verdict.headline,
    )
    # figures that the evaluation was made without stay out: the verdict is of those that it has
    (folder / EVALUATION_JSON).write_text(evaluation.model_dump_json(indent=1, exclude_unset=True) + "\n")
    (folder / VERDICT_JSON).write_text(verdict.model_dump_json(indent=1) + "\n")
    (folder / MODEL_CARD).write_text(model_card.render(manifest, evaluation, verdict))
    (folder / RELEASE_JSON).write_text(release.model_dump_json(indent=1) + "\n")
    return release
