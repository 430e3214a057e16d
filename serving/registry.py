"""MODEL_URI to a local, verified bundle folder: a path, `gs://`, or `models:/name@alias` in MLflow.

Downloads land in a folder of their own, are verified there, and take their place in the cache by one rename: a cached
bundle is whole, however a download ended and however many processes raced.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from serving.detector.bundle import read_manifest, verify
from serving.platform.errors import BundleError, ModelNotFoundError, RegistryMissingError, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

GS: Final = "gs://"
MODELS: Final = "models:/"
SQLITE: Final = "sqlite:///"

_KEY_DIGITS: Final = 16


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
        uri: local folder, `gs://bucket/folder`, `models:/name@alias` or `models:/name/version`.
        cache_dir: where downloaded bundles are kept.
        tracking_uri: MLflow server or sqlite URI for `models:/`.

    Raises:
        ModelNotFoundError: nothing is there, or it cannot be reached.
        BundleError: something is there, but it is no bundle.
    """
    if uri.startswith(MODELS):
        return _from_mlflow(uri, cache_dir, tracking_uri)
    if uri.startswith(GS):
        return _from_cloud_storage(uri, cache_dir)
    folder = Path(uri.removeprefix("file://"))
    if not folder.is_dir():
        raise ModelNotFoundError(f"{uri}: no such folder")
    # behind a link: files read later must be those that were verified
    folder = folder.resolve()
    return ResolvedModel(uri, folder, read_manifest(folder).digest[:12])


def _from_mlflow(uri: str, cache_dir: Path, tracking_uri: str) -> ResolvedModel:
    database = tracking_uri.removeprefix(SQLITE)
    if database != tracking_uri and not Path(database).is_file():
        # MLflow would make an empty one
        unusable = Path(database).exists() or any(parent.is_file() for parent in Path(database).parents)
        kind = ModelNotFoundError if unusable else RegistryMissingError
        raise kind(f"{uri}: no registry at {tracking_uri}: no such file")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        name, found = _model_version(MlflowClient(tracking_uri or None, tracking_uri or None), uri)
    except ImportError as error:
        raise ModelNotFoundError(f"{uri}: models:/ needs the package mlflow-skinny (mlflow for sqlite)") from error
    except MlflowException as error:
        where = tracking_uri or "the default registry; set MLFLOW_TRACKING_URI"
        raise ModelNotFoundError(f"{uri}: not in the registry at {where}: {one_line(error)}") from error

    def download(folder: Path) -> None:
        from mlflow.artifacts import download_artifacts

        try:
            download_artifacts(artifact_uri=found.source, dst_path=str(folder), tracking_uri=tracking_uri or None)
        except (MlflowException, OSError) as error:
            raise ModelNotFoundError(f"{uri}: version {found.version} cannot be read: {one_line(error)}") from error

    # the number alone is no identity: another registry, or one made anew, has a version 1 too
    key = _key(tracking_uri, found.source, found.creation_timestamp)
    folder = _cached(cache_dir / "models" / name / f"{found.version}-{key}", download)
    return ResolvedModel(uri, folder, str(found.version))


def _model_version(client: "MlflowClient", uri: str) -> tuple[str, Any]:
    name, _, alias = uri.removeprefix(MODELS).partition("@")
    if alias:
        return name, client.get_model_version_by_alias(name, alias)
    name, _, number = name.rpartition("/")
    if not name or not number.isdigit():
        raise ModelNotFoundError(f"{uri}: say models:/name@alias or models:/name/version")
    return name, client.get_model_version(name, number)


def _from_cloud_storage(uri: str, cache_dir: Path) -> ResolvedModel:
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage
        from google.cloud.storage.exceptions import DataCorruption
    except ImportError as error:
        raise ModelNotFoundError(f"{uri}: gs:// needs the package google-cloud-storage") from error

    bucket, _, prefix = uri.removeprefix(GS).strip("/").partition("/")
    try:
        client = storage.Client()
        blobs = [b for b in client.list_blobs(bucket, prefix=f"{prefix}/" if prefix else "") if b.name[-1] != "/"]
        if not blobs:
            raise ModelNotFoundError(f"{uri}: no such folder")
        names = {blob.name: PurePosixPath(blob.name).relative_to(prefix or ".") for blob in blobs}

        def download(folder: Path) -> None:
            for blob in blobs:
                target = folder / names[blob.name]
                target.parent.mkdir(parents=True, exist_ok=True)
                blob.download_to_filename(str(target), checksum="crc32c")

        # generations change when an object is written again, so the key names exactly this content
        key = _key(uri, *sorted(f"{blob.name}#{blob.generation}" for blob in blobs))
        folder = _cached(cache_dir / "gs" / key, download)
    except (GoogleAPIError, GoogleAuthError, DataCorruption, OSError) as error:
        raise ModelNotFoundError(f"{uri}: cannot be read: {one_line(error)}") from error
    return ResolvedModel(uri, folder, read_manifest(folder).digest[:12])


def _cached(place: Path, download: Callable[[Path], None]) -> Path:
    """The verified bundle at `place`, downloaded if it is not there yet or no longer whole."""
    if place.is_dir():
        try:
            verify(place)
        except BundleError:
            shutil.rmtree(place, ignore_errors=True)
        else:
            return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".partial-") as partial:
        download(Path(partial))
        bundle = _bundle_root(Path(partial))
        verify(bundle)
        try:
            bundle.rename(place)
        except OSError:
            # another process was first; its copy was verified as well
            if not place.is_dir():
                raise
    return place


def _bundle_root(folder: Path) -> Path:
    """The downloaded bundle: MLflow puts it in a folder of its own inside the target."""
    inner = [path for path in folder.iterdir() if path.is_dir()]
    return inner[0] if len(inner) == 1 and not any(path.is_file() for path in folder.iterdir()) else folder


def _key(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:_KEY_DIGITS]
