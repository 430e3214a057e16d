"""The bundle: the one model artifact that train makes, evaluate scores, register stores and the server loads.

A folder of plain files (never pickle). `manifest.json` names every other file with its sha256 and is itself sealed,
so a single changed byte anywhere is found before anything is parsed or run.
"""

import hashlib
import json
import re
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from serving.detector.conclusion import DecisionBands
from serving.detector.decision import DecisionRule
from serving.detector.domain import TrainedDomain
from serving.detector.labels import LABELS, Label
from serving.detector.preprocess import PREPROCESSING, Preparation
from serving.platform.errors import BundleError, one_line
from serving.platform.frozen import Frozen
from serving.platform.records import read_record

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
HEAD: Final = "head.safetensors"
WEIGHTS: Final = "weights.safetensors"
REFERENCE: Final = "reference.json"
MODEL_CARD: Final = "MODEL_CARD.md"
GOLDEN: Final = "golden"
GOLDEN_BYTES: Final = 32 << 20
"""Of one golden image; they are photos, as the server takes them."""
RELEASE: Final = "release"
"""Folder a registry adds beside the sealed files: evaluation, verdict, model card of the release."""


MANIFEST_BYTES: Final = 2**22
"""A larger manifest is not read: one of ours has some kilobytes."""

_PLAIN_PATH: Final = re.compile(r"[\w.-]+(/[\w.-]+)*")
_REQUIRED: Final = (MODEL, HEAD, WEIGHTS, REFERENCE, MODEL_CARD)


class GoldenExample(Frozen):
    """An image shipped in the bundle with the verdict it must reproduce."""

    file: str
    label: Label
    prediction: Label
    probability: float = Field(ge=0.0, le=1.0)


class Provenance(Frozen):
    """Where the model came from."""

    run_id: str
    git_sha: str
    data_fingerprint: str
    created_at: str
    seed: int
    train_config: dict[str, Any]
    libraries: dict[str, str]


class Manifest(Frozen):
    """Everything a reader needs to use the model right."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    architecture: str
    input_px: int = Field(ge=16, le=2048)
    labels: tuple[Label, ...] = LABELS
    preprocessing: dict[str, str | float] = PREPROCESSING
    decision: DecisionRule
    bands: DecisionBands | None = None
    """The two thresholds of a decision; None in bundles made before there were three outcomes."""
    domain: TrainedDomain | None = None
    """What the training's photos were like; None in bundles made before that was looked at."""
    golden: tuple[GoldenExample, ...] = Field(min_length=2)
    provenance: Provenance
    files: dict[str, str]
    """Relative path -> sha256, of every file but the manifest."""

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if not _PLAIN_PATH.fullmatch(name) or ".." in name.split("/"):
                raise ValueError(f"{name[:80]!r} is no path inside a bundle")
        return files

    @field_validator("decision")
    @classmethod
    def _decides(cls, rule: DecisionRule) -> DecisionRule:
        if not all(map(isfinite, asdict(rule).values())) or rule.temperature <= 0:
            raise ValueError("not a rule: every number must be finite and the temperature positive")
        return rule

    @property
    def preparation(self) -> Preparation:
        """How the model takes a picture.

        Raises:
            ValueError: in a way that this code does not know.
        """
        return Preparation.of(self.preprocessing, self.input_px)

    @property
    def digest(self) -> str:
        """sha256 over the manifest, and through `files` over the whole bundle: the model's content address."""
        # what a manifest of an earlier version did not say is no part of its address
        return hashlib.sha256(_canonical(self.model_dump(mode="json", exclude_unset=True))).hexdigest()


def seal(folder: Path, **fields: Any) -> Manifest:
    """Hash every file of `folder` and write its manifest; `fields` are those of `Manifest` but `files`.

    Raises:
        BundleError: a required file is missing.
    """
    missing = [name for name in _REQUIRED if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"{folder}: cannot seal a bundle without {', '.join(missing)}")
    files = {path: _sha256(folder / path) for path in _content(folder)}
    manifest = Manifest.model_validate(Manifest(files=files, **fields).model_dump(mode="json"))
    document = {"digest": manifest.digest, **manifest.model_dump(mode="json")}
    (folder / MANIFEST).write_bytes(_canonical(document))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle and check its own seal, without hashing the other files.

    Raises:
        BundleError: no manifest, a changed one, another schema, labels or preprocessing than this code's.
    """
    path = folder / MANIFEST
    try:
        raw = read_record(path, MANIFEST_BYTES)
    except OSError as error:
        why = f"not a model bundle ({error.strerror}); give the folder that training made"
        raise BundleError(f"{folder}: no readable {MANIFEST}; {why}") from error
    try:
        document = json.loads(raw)
        digest = document.pop("digest")
        manifest = Manifest.model_validate(document)
        # byte equality with the canonical form also catches changes that parse to the same values
        sealed = digest == manifest.digest and raw == _canonical({"digest": digest, **document})
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: damaged or of another schema: {one_line(error)}") from error
    if not sealed:
        raise BundleError(f"{path}: its contents do not match its seal; the bundle was changed after training")
    if manifest.labels != LABELS:
        raise BundleError(f"{path}: labels {manifest.labels} are not {LABELS}; verdicts would be inverted")
    try:
        _ = manifest.preparation
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    unlisted = [example.file for example in manifest.golden if example.file not in manifest.files]
    if unlisted:
        raise BundleError(f"{path}: the golden image {unlisted[0][:80]!r} is not among the bundle's files")
    return manifest


def verify(folder: Path) -> Manifest:
    """Check the seal and the sha256 of every file.

    Raises:
        BundleError: names the first file that is missing, changed or not listed.
    """
    manifest = read_manifest(folder)
    for name, expected in sorted(manifest.files.items()):
        path = folder / name
        try:
            actual = _sha256(path) if path.is_file() else ""
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        if not actual:
            raise BundleError(f"{path}: listed in the manifest but missing")
        if actual != expected:
            raise BundleError(f"{path}: sha256 is {actual[:12]}…, the manifest says {expected[:12]}…")
    extra = sorted(set(_content(folder)) - set(manifest.files))
    if extra:
        raise BundleError(f"{folder / extra[0]}: not listed in the manifest")
    return manifest


def _content(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(p.as_posix() for p in found if p.as_posix() != MANIFEST and p.parts[0] != RELEASE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
