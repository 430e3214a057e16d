"""`aidetect evaluate --outside`: a labelled folder through the bundle and the audit of its traces."""

from collections.abc import Callable, Sequence
from pathlib import Path

from components.artifacts.dataset import TEST
from components.evaluate.config import EvaluateConfig
from components.evaluate.outside import judge_outside
from components.outside.evaluation import OutsideEvaluation, why_no_auc
from components.verify_data.inspection import inspect
from components.verify_data.measurements import Recorder
from components.verify_data.rows import Batch
from components.verify_data.shortcuts import audit
from components.verify_data.skipped import shown
from serving.detector.conclusion import Policy
from serving.detector.detector import Detector


def evaluate_outside(
    place: str,
    detector: Detector,
    policy: Policy,
    config: EvaluateConfig,
    advance: Callable[[int], None] = lambda _n: None,
) -> OutsideEvaluation:
    """Judge every photo of a labelled folder, and look what their sizes and codecs alone would tell.

    Args:
        place: `{class}/**`, or `{split}/{class}/**`, in a folder or under `gs://`; classes by any known name.
        detector: the model.
        policy: how a deployment decides.
        config: draws and seed of the intervals.
        advance: told how many photos were done since the last call.

    Raises:
        SourceError: no class folders, no photos in them, or too many.
        StageError: nothing at `gs://`, or Google refused.
    """
    with Recorder() as recorder:

        def watch(paths: Sequence[Path], data: list[bytes], labels: list[int]) -> None:
            names, unknown = [shown(str(path)) for path in paths], [""] * len(paths)
            recorder.add(Batch(TEST, names, data, labels, unknown, unknown), inspect(data))

        tally = judge_outside(place, detector, policy, advance, watch)
        survey = recorder.survey()
        shortcuts = tuple(audit(survey))
    classes = tally.classes()
    refused = why_no_auc(classes, shortcuts)
    return OutsideEvaluation(
        folder=place,
        bundle_digest=detector.manifest.digest,
        classes=classes,
        roc_auc=None if refused else tally.roc_auc(config),
        roc_auc_refused=refused,
        shortcuts=shortcuts,
    )
