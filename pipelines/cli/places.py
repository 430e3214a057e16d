"""What a user may call a run's artifact: its run's id, or the run's folder."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipelines.settings.names import Stage
    from pipelines.settings.pipeline import PipelineConfig

_RUN_ID: Final = re.compile(r"\d{8}-\d{6}(-\d+)?")


def of_run(config: "PipelineConfig", place: str, stage: "Stage", artifact: str) -> str:
    """Where an artifact lies: of the run that `place` names, by id or folder, or else `place` itself.

    Raises:
        RunError: there is no such run, or it has no such artifact on this disk.
    """
    from pipelines.runs import RUN_JSON, find_run
    from serving.platform.errors import RunError

    path = Path(place)
    is_folder = "://" not in place and (path / RUN_JSON).is_file()
    if not is_folder and (path.exists() or not _RUN_ID.fullmatch(place)):
        return place
    workspace = path.resolve().parent.parent if is_folder else config.paths.workspace
    record = find_run(workspace, path.resolve().name)
    found = record.output(stage, artifact)
    if not record.stage(stage).output_dir or not found.exists():
        raise RunError(f"run {record.run_id} ({record.status}) has no {artifact} on this disk: {stage} did not finish")
    return str(found)
