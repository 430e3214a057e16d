"""The model version artifact: what register writes and deploy and the command line read.

Beside it, what a registry keeps with every version: the bundle folder plus `release/` with the four files below.
"""

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from components.artifacts.evaluation import Metric
from serving.detector.bundle import RELEASE
from serving.platform.errors import StageError
from serving.platform.frozen import Frozen
from serving.platform.records import read_record

MODEL_VERSION_JSON: Final = "model_version.json"
RELEASE_JSON: Final = "release.json"

CHALLENGER: Final = "challenger"
"""Alias of the newest version that passed the gate."""
CHAMPION: Final = "champion"
"""Alias of the version that serves users."""


class ModelVersion(Frozen):
    """`model_version.json`: one version in the registry, by an address that never moves."""

    schema_version: int = 1
    name: str
    version: str
    uri: str
    """`models:/name/3`: the version itself, not an alias that may have moved on by the time it is read."""
    bundle_digest: str
    tracking_uri: str
    run_id: str
    headline: str
    """The gate's one-line verdict."""
    bundle_uri: str = ""
    """`gs://` folder of the same files, where the version was registered on Google Cloud too."""
    vertex_resource: str = ""
    """`projects/…/models/…@2` in Vertex Model Registry, or empty."""


class Release(Frozen):
    """`release/release.json`: why this version may be served, kept with the version itself."""

    schema_version: int = 1
    bundle_digest: str
    run_id: str
    git_sha: str
    data_fingerprint: str
    metrics: dict[str, Metric]
    """The test split's figures, as in `evaluation.json`."""
    verdict: str
    """The gate's one-line verdict."""


def read_model_version(folder: Path) -> ModelVersion:
    """Read `model_version.json`.

    Raises:
        StageError: the folder holds none, or one of another schema.
    """
    path = folder / MODEL_VERSION_JSON
    try:
        return ModelVersion.model_validate_json(read_record(path))
    except (OSError, ValidationError) as error:
        raise StageError(f"{path}: no readable model version; run register first") from error


def write_model_version(folder: Path, version: ModelVersion) -> None:
    """Write `model_version.json`: whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{MODEL_VERSION_JSON}"
    partial.write_text(version.model_dump_json(indent=1) + "\n")
    partial.replace(folder / MODEL_VERSION_JSON)


def read_release(bundle: Path) -> Release:
    """Read `release/release.json` of a version fetched from the registry.

    Raises:
        StageError: the version carries no release record, so it never passed the gate.
    """
    path = bundle / RELEASE / RELEASE_JSON
    try:
        return Release.model_validate_json(read_record(path))
    except (OSError, ValidationError) as error:
        raise StageError(f"{path}: no release record; only versions made by register may be deployed") from error
