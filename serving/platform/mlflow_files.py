"""Files that MLflow keeps, copied to this disk only after it was asked how many there are."""

from pathlib import Path

from serving.platform.cloud_storage import refuse_more_than_a_model


def fetch(source: str, to: Path, tracking_uri: str) -> Path:
    """Copy the folder `source` (`runs:/RUN/FOLDER`, or where a version's files are) into `to`; returns the copy.

    Raises:
        StageError: MLflow lists more files or bytes than a model has; none of them was downloaded.
        MlflowException, OSError: it cannot be read.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

    # a bar of MLflow's would stand between our own lines
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call] # MLflow's settings are untyped
    _weigh(source, tracking_uri)
    return Path(download_artifacts(artifact_uri=source, dst_path=str(to), tracking_uri=tracking_uri or None))


def _weigh(source: str, tracking_uri: str) -> None:
    from mlflow.artifacts import list_artifacts

    root, listed, size = source.rpartition("/")[0], 0, 0
    folders = [source]
    while folders:
        for entry in list_artifacts(artifact_uri=folders.pop(), tracking_uri=tracking_uri or None):
            # folders count too: a server could list them for ever
            listed, size = listed + 1, size + (entry.file_size or 0)
            refuse_more_than_a_model(listed, size)
            if entry.is_dir:
                folders.append(f"{root}/{entry.path}")
