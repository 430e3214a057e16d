"""MODEL_URI to a local, verified bundle folder: a path, `gs://`, or `models:/name@alias` in MLflow."""

from dataclasses import dataclass
from pathlib import Path

from serving.detector.bundle import read_manifest


class ModelNotFoundError(LookupError):
    """A model URI that resolves to nothing; the message says what was looked for and where."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A bundle on this disk and the version it goes by."""

    uri: str
    folder: Path
    version: str
    """Registry version number, or the first 12 digits of the bundle's digest where no registry was asked."""


def resolve(uri: str, cache_dir: Path, tracking_uri: str = "") -> ResolvedModel:
    """Find a model and bring its bundle to this disk.

    Args:
        uri: local folder, `models:/name@alias` or `models:/name/version`.
        cache_dir: where downloaded bundles are kept.
        tracking_uri: MLflow server or sqlite URI for `models:/`.

    Raises:
        ModelNotFoundError: nothing is there.
        BundleError: something is there, but it is no bundle.
    """
    if uri.startswith("models:/"):
        return _from_mlflow(uri, cache_dir, tracking_uri)
    folder = Path(uri.removeprefix("file://"))
    if not folder.is_dir():
        raise ModelNotFoundError(f"{uri}: no such folder")
    return ResolvedModel(uri, folder, read_manifest(folder).digest[:12])


def _from_mlflow(uri: str, cache_dir: Path, tracking_uri: str) -> ResolvedModel:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri, tracking_uri)
    name, _, alias = uri.removeprefix("models:/").partition("@")
    try:
        if alias:
            found = client.get_model_version_by_alias(name, alias)
        else:
            name, _, number = name.rpartition("/")
            found = client.get_model_version(name, number)
    except MlflowException as error:
        raise ModelNotFoundError(f"{uri}: not in the registry at {tracking_uri or 'the default URI'}") from error
    folder = cache_dir / name / str(found.version)
    if not folder.is_dir():
        partial = cache_dir / name / f".{found.version}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        download_artifacts(artifact_uri=found.source, dst_path=str(partial), tracking_uri=tracking_uri)
        inner = partial / Path(str(found.source)).name
        (inner if inner.is_dir() else partial).rename(folder)
    return ResolvedModel(uri, folder, str(found.version))
