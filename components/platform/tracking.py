"""The MLflow run of a pipeline run: one for all stages, found by its tag, so that figures of a run stand together."""

import time
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Final

from components.artifacts.context import RunContext
from components.platform.registry import open_client
from serving.platform import mlflow_files
from serving.platform.errors import StageError, one_line

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

RUN_ID_TAG: Final = "run_id"
"""Tag of the MLflow run that holds our run id."""


def find_run(client: "MlflowClient", experiment: str, run_id: str) -> str | None:
    """MLflow's id of the run tagged with `run_id` in an experiment; None when there is none."""
    run = _tagged(client, experiment, run_id)
    return str(run.info.run_id) if run is not None else None


def _tagged(client: "MlflowClient", experiment: str, run_id: str) -> "Run | None":
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    quoted = run_id.replace("'", "")
    runs = client.search_runs([str(found.experiment_id)], f"tags.{RUN_ID_TAG} = '{quoted}'", max_results=1)
    return runs[0] if runs else None


def find_or_create_run(client: "MlflowClient", context: RunContext) -> str:
    """MLflow's id of the run tagged with `context.run_id`; made, with its experiment, when there is none."""
    found = _tagged(client, context.experiment, context.run_id)
    if found is not None:
        if context.reason and "reason" not in found.data.tags:
            # a stage whose result may answer later runs makes the run without a reason of its own
            client.set_tag(found.info.run_id, "reason", context.reason)
        return str(found.info.run_id)
    experiment = client.get_experiment_by_name(context.experiment)
    if experiment is None:
        experiment_id = client.create_experiment(context.experiment, artifact_location=context.artifact_root or None)
    else:
        experiment_id = experiment.experiment_id
    tags = {RUN_ID_TAG: context.run_id, "git_sha": context.git_sha}
    if context.reason:
        tags["reason"] = context.reason
    return str(client.create_run(str(experiment_id), tags=tags, run_name=context.run_id).info.run_id)


def fetch_recorded(tracking_uri: str, experiment: str, run_id: str, folder: str, to: Path) -> Path:
    """Copy the files that a stage stored with `record` under `folder` into `to`; returns the copied folder.

    Raises:
        StageError: no such run, nothing stored for it, or the tracking server cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    missing = f"MLflow at {tracking_uri} holds no {folder} of run {run_id}"
    try:
        found = find_run(open_client(tracking_uri), experiment, run_id)
        to.mkdir(parents=True, exist_ok=True)
        fetched = mlflow_files.fetch(f"runs:/{found}/{folder}", to, tracking_uri) if found else None
    except (MlflowException, StageError, OSError) as error:
        raise StageError(f"{missing}: {one_line(error)}") from error
    if fetched is None:
        raise StageError(missing)
    return fetched


def record(
    context: RunContext,
    *,
    metrics: Mapping[str, float],
    tags: Mapping[str, str] | None = None,
    files: Iterable[Path] = (),
    folder: str = "",
) -> None:
    """Add figures, tags and files to the run of `context`; nothing happens when the context tracks nowhere.

    Args:
        context: names the run and the tracking server.
        metrics: numbers by name; those that are not finite are left out (MLflow's stores refuse some of them).
        tags: texts by name.
        files: files to store under the artifact folder `folder`.
        folder: artifact folder inside the run.

    Raises:
        StageError: the tracking server refused or could not be reached.
    """
    if not context.tracking_uri:
        return
    from mlflow.entities import Metric, RunTag
    from mlflow.exceptions import MlflowException

    now_ms = int(time.time() * 1000)
    try:
        client = open_client(context.tracking_uri)
        run_id = find_or_create_run(client, context)
        client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), now_ms, 0) for name, value in metrics.items() if isfinite(value)],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )
        for file in files:
            client.log_artifact(run_id, str(file), folder or None)
    except MlflowException as error:
        reason = one_line(error)
        raise StageError(
            f"MLflow at {context.tracking_uri} did not take the run's figures: {reason}; check the tracking URI"
        ) from error
