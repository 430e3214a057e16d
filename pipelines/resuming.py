"""What a run takes over from an earlier one on this disk: the finished stages that nothing has changed since."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from components.artifacts.dataset import DATASET_JSON
from components.artifacts.evaluation import read_evaluation
from components.artifacts.model_version import CHAMPION
from components.platform.registry import find_aliased
from pipelines.runs import PARAMETERS_FILE, RunRecord
from pipelines.settings.names import STAGES, Stage
from pipelines.settings.pipeline import PipelineConfig
from serving.platform.errors import RunError
from serving.platform.records import read_record


def taken_over(earlier: RunRecord, config: PipelineConfig, parameters: dict[str, Any]) -> dict[str, str]:
    """KFP's name of each stage that the earlier run finished for this one -> its folder there.

    Stages are taken over up to the first that failed, whose own settings differ, or whose inputs are others now: a
    packed dataset that was written anew, a champion that the evaluation was not compared with.

    Args:
        earlier: a run of the same pipeline on this disk.
        config: in force now; the registry is its.
        parameters: of the new run, as they are sent to the pipeline.

    Raises:
        RunError: the gate refused the earlier run and would be asked the same again.
        StageError: the registry cannot be asked for the champion, or the evaluation is damaged.
    """
    before = _read_parameters(Path(earlier.folder))
    found: dict[str, str] = {}
    for stage in STAGES:
        names = [f"{'gate' if stage == 'quality_gate' else stage}_config"]
        names += ["data_uri", "data_labels"] if stage == "verify_data" else []
        same = all(before.get(name) == parameters[name] for name in names)
        whole = earlier.ran(stage) and Path(earlier.stage(stage).output_dir).is_dir()
        if not (same and whole and _has_its_inputs(stage, earlier, config)):
            break
        found[stage.replace("_", "-")] = earlier.stage(stage).output_dir
    if earlier.status == "refused" and "quality-gate" in found:
        raise RunError(
            f"run {earlier.run_id} was refused, and nothing has changed that its verdict rests on; change a setting, "
            f"e.g.: aidetect run --resume {earlier.run_id} --set gate.min_test_images=50"
        )
    return found


def _has_its_inputs(stage: Stage, earlier: RunRecord, config: PipelineConfig) -> bool:
    """Whether what a finished stage read from outside of its run is still what it read."""
    if stage == "verify_data":
        packed = Path(config.data.uri) / DATASET_JSON
        written = packed.stat().st_mtime if "://" not in config.data.uri and packed.is_file() else 0.0
        return written < datetime.fromisoformat(earlier.started_at).timestamp() + earlier.stage(stage).seconds
    if stage != "evaluate" or config.evaluate.champion_uri != type(config.evaluate)().champion_uri:
        return True
    evaluation = read_evaluation(earlier.output("evaluate", "evaluation"))
    champion = find_aliased(config.tracking_uri, config.tracking.model_name, CHAMPION) if config.has_registry else None
    if champion is not None and champion.bundle_digest == evaluation.bundle_digest:
        return True  # this very model, which a deploy that failed later has promoted
    compared = evaluation.champion.champion_version if evaluation.champion is not None else None
    return compared == (champion.version if champion is not None else None)


def _read_parameters(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(read_record(folder / PARAMETERS_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    return found
