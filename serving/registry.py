"""MODEL_URI to a local, verified bundle folder: a path, `gs://`, or `models:/name@alias` in MLflow.

A seal says that a bundle is whole, not that it is the one that was judged: wherever a digest was recorded (the
registry's tag, a folder named by its content, the release beside the bundle, MODEL_DIGEST), the bundle must have it.
Downloads land in a folder of their own, are verified there, and take their place in the cache by one rename: a cached
bundle is whole, however a download ended and however many processes raced.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.detector.bundle import RELEASE, read_manifest, verify
from serving.platform import cloud_storage, mlflow_files
from serving.platform.errors import BundleError, ModelNotFoundError, RegistryMissingError, StageError, one_line
from serving.platform.mlflow_sign_in import sign_in
from serving.platform.records import read_record
from serving.registry_file import ARTIFACTS, SQLITE, read_versions

MODELS: Final = "models:/"
DIGEST_TAG: Final = "digest"
"""Tag of a registered version: the digest of the bundle that passed the gate."""

RELEASE_TAG: Final = "release_digest"
"""The same of the record that register put beside it (`release_digest`)."""

UNFINISHED_TAG: Final = "registering"
"""On a version from its first moment to the end of its registration: one that was killed meanwhile is not served."""

_KEY_DIGITS: Final = 16
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A bundle on this disk and the version it goes by."""

    uri: str
    folder: Path
    version: str
    """Registry version number, or the first 12 digits of the bundle's digest where no registry was asked."""
    digest: str
    """Of the bundle in `folder`, found equal to every digest that was recorded for it."""
    release: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What register added to the bundle: `release`, `evaluation`, `verdict`, each absent where it is not."""


def resolve(uri: str, cache_dir: Path, tracking_uri: str = "", digest: str = "") -> ResolvedModel:
    """Find a model and bring its bundle to this disk.

    Args:
        uri: local folder, `gs://bucket/folder`, `models:/name@alias` or `models:/name/version`.
        cache_dir: where downloaded bundles are kept.
        tracking_uri: MLflow server or sqlite URI for `models:/`.
        digest: the bundle's digest where the caller knows it from a registry; empty: no further demand.

    Raises:
        ModelNotFoundError: nothing is there, or it cannot be reached.
        BundleError: something is there, but it is no bundle, or not the one that was recorded.
    """
    if uri.startswith(MODELS):
        found = _from_mlflow(uri, cache_dir, tracking_uri)
    else:
        last = uri.rstrip("/").rpartition("/")[2]
        named = last if _DIGEST.fullmatch(last) else ""
        in_cloud = uri.startswith(cloud_storage.SCHEME)
        folder = _from_cloud_storage(uri, cache_dir, named) if in_cloud else _from_disk(uri, named)
        own = read_manifest(folder).digest
        found = ResolvedModel(uri, folder, own[:12], own, read_release(folder))
    if digest and digest != found.digest:
        raise _stranger(uri, "MODEL_DIGEST says", digest, found.digest)
    return found


def _stranger(uri: str, who: str, recorded: str, found: str) -> BundleError:
    """A whole bundle in another one's place."""
    return BundleError(
        f"{uri}: {who} bundle {recorded[:12]}, but in its place lies {found[:12]}: the files were replaced; "
        "bring the recorded ones back, or register and promote the new bundle"
    )


def _from_disk(uri: str, digest: str) -> Path:
    folder = Path(uri.removeprefix("file://"))
    if not folder.is_dir():
        raise ModelNotFoundError(f"{uri}: no such folder; give a bundle's folder or models:/NAME@ALIAS")
    # behind a link: files read later must be those that were verified
    folder = folder.resolve()
    _compare(uri, folder, "the folder's name says", digest)
    return folder


def _compare(uri: str, folder: Path, who: str, digest: str) -> None:
    """Raise BundleError where the bundle is not the one recorded by `digest` (if any) or by its own release."""
    own = read_manifest(folder).digest
    if digest and digest != own:
        raise _stranger(uri, who, digest, own)
    for name, record in read_release(folder).items():
        if record.get("bundle_digest") != own:
            raise _stranger(uri, f"its {name}.json is of", str(record.get("bundle_digest")), own)


def read_release(folder: Path) -> dict[str, dict[str, Any]]:
    """The documents that register put beside the sealed files, by name; those that are not there are left out.

    Raises:
        BundleError: one of them is damaged.
    """
    found = {}
    for name in ("release", "evaluation", "verdict"):
        path = folder / RELEASE / f"{name}.json"
        if not path.is_file():
            continue
        try:
            document = json.loads(read_record(path))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{path}: cannot be read: {one_line(error)}; register the bundle again") from error
        figures = document.get("test", {}) if isinstance(document, dict) else None
        if not isinstance(figures, dict) or not isinstance(figures.get("metrics", {}), dict):
            raise BundleError(f"{path}: no record of a release; register the bundle again")
        found[name] = document
    return found


def release_digest(folder: Path) -> str:
    """sha256 over the names and contents of a release record's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob("*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _from_mlflow(uri: str, cache_dir: Path, tracking_uri: str) -> ResolvedModel:
    database = tracking_uri.removeprefix(SQLITE)
    if database != tracking_uri and not Path(database).is_file():
        # MLflow would make an empty one
        unusable = Path(database).exists() or any(parent.is_file() for parent in Path(database).parents)
        kind = ModelNotFoundError if unusable else RegistryMissingError
        raise kind(f"{uri}: no registry at {tracking_uri}: no such file")
    name, alias, number = _asked(uri)
    found, beside = _in_file(tracking_uri, name, alias, number) or _of_client(uri, tracking_uri, name, alias, number)
    digest = _recorded(found, uri)

    def download(folder: Path) -> None:
        if beside is not None:
            shutil.copytree(beside, folder / "bundle")
            return
        from mlflow.exceptions import MlflowException

        try:
            mlflow_files.fetch(str(found.source), folder, tracking_uri)
        except (MlflowException, StageError, OSError) as error:
            raise ModelNotFoundError(f"{uri}: version {found.version} cannot be read: {one_line(error)}") from error

    # the number alone is no identity: another registry, or one made anew, has a version 1 too
    key = _key(tracking_uri, found.source, found.creation_timestamp)

    def check(folder: Path) -> None:
        _compare(uri, folder, f"version {found.version} was registered with", digest)
        recorded = found.tags.get(RELEASE_TAG)
        if recorded and recorded != release_digest(folder / RELEASE):
            raise BundleError(
                f"{uri}: the release record of version {found.version} (verdict, evaluation, card) was changed after "
                "its registration; bring the recorded one back, or register the bundle again"
            )

    folder = _cached(cache_dir / "models" / name / f"{found.version}-{key}", download, check)
    return ResolvedModel(uri, folder, str(found.version), digest, read_release(folder))


def _recorded(version: Any, uri: str) -> str:
    """The digest that register recorded for a version."""
    digest = str(version.tags.get(DIGEST_TAG, ""))
    if UNFINISHED_TAG in version.tags:
        raise BundleError(
            f"{uri}: version {version.version} is half registered: register is at work, or was killed; to finish it, "
            "register the same bundle again (aidetect run --resume, or aidetect register)"
        )
    if not digest:
        raise BundleError(
            f"{uri}: version {version.version} has no tag {DIGEST_TAG!r}, so nobody can tell if its files are those "
            "that passed the gate; register it with: aidetect run"
        )
    return digest


def _asked(uri: str) -> tuple[str, str, str]:
    """Model, alias and version number of a `models:/` address; one of the latter two is empty."""
    name, _, alias = uri.removeprefix(MODELS).partition("@")
    if alias:
        return name, alias, ""
    name, _, number = name.rpartition("/")
    if not name or not number.isdigit():
        raise ModelNotFoundError(f"{uri}: say models:/name@alias or models:/name/version")
    return name, "", str(int(number))


def _in_file(tracking_uri: str, name: str, alias: str, number: str) -> tuple[Any, Path] | None:
    """A version and its files, where a sqlite registry on this disk has both; MLflow is not needed for them."""
    for found in read_versions(tracking_uri, name) or ():
        if alias in found.aliases if alias else found.version == number:
            beside = _beside(found.source, found.artifact_uri, tracking_uri.removeprefix(SQLITE))
            return (found, beside) if beside else None
    return None


def _of_client(uri: str, tracking_uri: str, name: str, alias: str, number: str) -> tuple[Any, Path | None]:
    """A version as MLflow has it, and its files where they lie beside a sqlite registry."""
    try:
        from mlflow.tracking import MlflowClient

        sign_in(tracking_uri)
        client = MlflowClient(tracking_uri or None, tracking_uri or None)
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        source = str(found.source)
        if not tracking_uri.startswith(SQLITE) or not source.startswith("runs:/"):
            return found, None
        place = client.get_run(source.removeprefix("runs:/").partition("/")[0]).info.artifact_uri
        return found, _beside(source, str(place), tracking_uri.removeprefix(SQLITE))
    except ImportError as error:
        raise ModelNotFoundError(f"{uri}: models:/ needs the package mlflow-skinny (mlflow for sqlite)") from error
    except Exception as error:  # MLflow lets through what its database raises
        where = tracking_uri or "the default registry; set MLFLOW_TRACKING_URI"
        raise ModelNotFoundError(f"{uri}: not in the registry at {where}: {one_line(error)}") from error


def _beside(source: str, artifact_uri: str, database: str) -> Path | None:
    """A version's files beside the database, where a workspace that was moved or copied has them."""
    if not source.startswith("runs:/"):
        return None
    path = source.removeprefix("runs:/").partition("/")[2]
    _, found, tail = artifact_uri.rpartition(f"/{ARTIFACTS}/")
    folder = Path(database).parent / ARTIFACTS / tail / path
    return folder if found and folder.is_dir() else None


def _from_cloud_storage(uri: str, cache_dir: Path, digest: str) -> Path:
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption
    except ImportError as error:
        raise ModelNotFoundError(f"{uri}: gs:// needs the package google-cloud-storage") from error

    try:
        found = cloud_storage.bundle_objects(uri)
        if not found:
            raise ModelNotFoundError(f"{uri}: no such folder; give a bundle's folder or models:/NAME@ALIAS")
        # generations change when an object is written again, so the key names exactly this content
        key = _key(uri, *sorted(f"{blob.name}#{blob.generation}" for blob in found))
        return _cached(
            cache_dir / "gs" / key,
            lambda folder: cloud_storage.fetch(found, uri, folder),
            lambda at: _compare(uri, at, "the folder's name says", digest),
        )
    except (GoogleAPIError, GoogleAuthError, DataCorruption, StageError, OSError) as error:
        raise ModelNotFoundError(f"{uri}: cannot be read: {one_line(error)}") from error


def _cached(place: Path, download: Callable[[Path], None], check: Callable[[Path], None]) -> Path:
    """The verified bundle at `place`, downloaded if it is not there yet, no longer whole, or fails `check`."""
    if place.is_dir():
        try:
            verify(place)
            check(place)
        except BundleError:
            shutil.rmtree(place, ignore_errors=True)
        else:
            return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".partial-") as partial:
        download(Path(partial))
        bundle = _bundle_root(Path(partial))
        verify(bundle)
        check(bundle)
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
