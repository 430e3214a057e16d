"""A bundle that was changed in any byte, or does not reproduce its own examples, is never served."""

import json
import shutil
from pathlib import Path

import pytest

from serving.detector import bundle
from serving.detector.bundle import read_manifest, seal
from serving.detector.detector import Detector
from serving.platform.errors import BundleError


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_flipped_byte_in_any_file_is_refused_by_name(toy_bundle: Path, tmp_path: Path) -> None:
    names = files(toy_bundle)
    assert {bundle.MANIFEST, bundle.MODEL, bundle.HEAD, bundle.WEIGHTS, bundle.REFERENCE, bundle.MODEL_CARD} < set(
        names
    )
    for index, name in enumerate(names):
        copy = Path(shutil.copytree(toy_bundle, tmp_path / str(index)))
        flip(copy / name)
        with pytest.raises(BundleError) as error:
            Detector.load(copy)
        assert str(copy / name) in str(error.value)


@pytest.mark.parametrize("byte", [0, 7, -2])
def test_every_byte_of_the_manifest_counts(toy_bundle: Path, tmp_path: Path, byte: int) -> None:
    copy = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    data = bytearray((copy / bundle.MANIFEST).read_bytes())
    for bit in range(8):
        changed = data.copy()
        changed[byte] ^= 1 << bit
        (copy / bundle.MANIFEST).write_bytes(bytes(changed))
        with pytest.raises(BundleError, match=r"manifest\.json"):
            read_manifest(copy)


def test_white_space_alone_breaks_the_seal(toy_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    document = json.loads((copy / bundle.MANIFEST).read_text())
    (copy / bundle.MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="do not match its seal"):
        read_manifest(copy)


def test_files_missing_and_files_too_many_are_named(toy_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    (copy / "payload.pkl").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"payload\.pkl: not listed"):
        bundle.verify(copy)
    (copy / "payload.pkl").unlink()
    (copy / bundle.REFERENCE).unlink()
    with pytest.raises(BundleError, match=r"reference\.json: listed in the manifest but missing"):
        bundle.verify(copy)
    with pytest.raises(BundleError, match=r"cannot seal a bundle without reference\.json"):
        seal(copy)
    with pytest.raises(BundleError, match="not a model bundle"):
        read_manifest(tmp_path / "nowhere")


def test_a_model_that_fails_its_golden_examples_is_refused_with_the_numbers(
    toy_bundle: Path, inverted_bundle: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    for name in (bundle.MODEL, bundle.HEAD):
        shutil.copyfile(inverted_bundle / name, copy / name)
    old = read_manifest(toy_bundle)
    fields = {name: getattr(old, name) for name in type(old).model_fields if name != "files"}
    seal(copy, **fields)  # every hash is right: only the replay can tell
    bundle.verify(copy)
    golden = old.golden[0]
    with pytest.raises(BundleError) as error:
        Detector.load(copy)
    message = str(error.value)
    assert golden.file in message
    assert f"expected {golden.prediction} {golden.probability:.6f}" in message


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("labels", ["ai_generated", "real"], "verdicts would be inverted"), ("preprocessing", {"shape": "crop"}, "crop")],
)
def test_other_labels_or_preprocessing_are_refused(
    toy_bundle: Path, tmp_path: Path, field: str, value: object, message: str
) -> None:
    copy = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    old = read_manifest(toy_bundle)
    fields = {name: getattr(old, name) for name in type(old).model_fields if name != "files"}
    seal(copy, **{**fields, field: value})
    with pytest.raises(BundleError, match=message):
        read_manifest(copy)
