"""Native views: what a resize destroys they keep, and what was trained on them is what is served."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from components.artifacts.dataset import VAL, Dataset
from components.train.config import TrainConfig
from components.train.pairs import paired_order
from pipelines.cli.app import app
from serving.detector.bundle import read_manifest
from serving.detector.detector import Detector
from serving.detector.engine import Engine
from serving.detector.preprocess import Preparation
from serving.detector.statistics import read_reference
from serving.platform.errors import ImageRefusedError
from tests.components.evaluate.packed import pack, row
from tests.components.train.conftest import fit
from tests.components.train.packed import TINY

PLAIN = {
    **TINY,
    "input_px": 32,
    "low_res_epochs": 0,
    "epochs": 6,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "ema_decay": 0.8,
    "early_stopping_patience": 0,
    "augment": {"enabled": False},
}
NATIVE = {**PLAIN, "views": "native", "crops": 4, "pairs": True}


def picture(rng: np.random.Generator, size: tuple[int, int], generated: bool) -> bytes:
    """A soft picture; a generated one has a grid of single pixels in it, as decoders of generators leave one."""
    soft = Image.fromarray(rng.integers(40, 215, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(soft).astype(int)
    if generated:
        y, x = np.indices(pixels.shape[:2])
        pixels += np.where((x + y) % 2, 16, -16)[..., None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def gridded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of a source, a real and a generated one each, of mixed sizes; the grid is all that tells them apart."""
    rng = np.random.default_rng(8)
    splits: dict[str, Sequence[dict[str, object]]] = {}
    for split, n in (("train", 96), ("val", 40)):
        splits[split] = [
            row(picture(rng, (128 + 16 * (i % 3), 96), i % 2 == 1), i % 2, "grid" if i % 2 else "", f"{split}{i // 2}")
            for i in range(n)
        ]
    return pack(tmp_path_factory.mktemp("gridded") / "data", splits)


def trained(data: Path, knobs: dict[str, Any], migrated: Path, folder: Path) -> Path:
    """A bundle made by the command line."""
    shutil.copy(migrated, folder / "mlflow.db")
    given = {f"train.{name}": value for name, value in knobs.items() if name != "augment"}
    given |= {"train.augment.enabled": False, "train.checkpoint_dir": "", "paths.workspace": folder}
    words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    ran = CliRunner().invoke(
        app, ["train", "--profile", "local", "--dataset", str(data), "-o", str(folder / "bundle"), *words]
    )
    assert ran.exit_code == 0, f"{ran.output}{ran.exception}"
    found = read_manifest(folder / "bundle").provenance.train_config
    kept = {name: value for name, value in knobs.items() if name != "augment"}
    assert {name: found[name] for name in kept} == kept
    return folder / "bundle"


@pytest.fixture(scope="module")
def native(gridded: Path, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on native views, in pairs."""
    return trained(gridded, NATIVE, migrated, tmp_path_factory.mktemp("native"))


def ranked(bundle: Path, data: Path) -> float:
    """Share of the pairs of a generated and a real validation image that the served bundle puts in order."""
    detector, packed = Detector.load(bundle), Dataset(data)
    logits = np.array([detector.judge(image).logit for image in packed.images(VAL)])
    labels = packed.table(VAL, ["label"]).column("label").to_numpy()
    return float((logits[labels == 1][:, None] > logits[labels == 0]).mean())


def test_native_views_see_what_the_resize_destroys(gridded: Path, native: Path, tmp_path: Path) -> None:
    whole = fit(gridded, tmp_path / "whole", TrainConfig.model_validate(PLAIN))
    # at random 40 photos are ranked beyond .8 once in a thousand times
    assert whole.history[-1]["val_roc_auc"] < 0.8, "nothing is left of a grid of single pixels"
    assert ranked(native, gridded) > 0.95
    assert "4 crop(s) at native resolution" in (native / "MODEL_CARD.md").read_text()


def test_parts_of_photos_are_cut_and_not_made_smaller(migrated: Path, tmp_path: Path) -> None:
    # a resize to three quarters would leave nothing of the grid, which is judged on the whole photo
    rng = np.random.default_rng(9)
    data = pack(
        tmp_path / "data",
        {
            split: [row(picture(rng, (64, 64), i % 2 == 1), i % 2, "grid" if i % 2 else "") for i in range(n)]
            for split, n in (("train", 96), ("val", 40))
        },
    )
    assert ranked(trained(data, {**PLAIN, "input_px": 64, "part": 0.75, "epochs": 8}, migrated, tmp_path), data) > 0.95


def test_what_was_calibrated_is_what_is_served(gridded: Path, native: Path) -> None:
    detector = Detector.load(native)
    files = list(Dataset(gridded).images(VAL))
    together = [one for one in detector.judge_all(files) if not isinstance(one, ImageRefusedError)]
    served = [one.logit for one in together]
    np.testing.assert_allclose(sorted(served), sorted(read_reference(native).logits), atol=1e-4)
    np.testing.assert_allclose([detector.judge(file).logit for file in files[:4]], served[:4], atol=1e-5)
    engine, ways = Engine(native / "model.onnx"), detector.preparation
    assert ways == Preparation(32, crops=4) and together[0].pixels.shape == (4, 32, 32, 3)
    picture = Image.open(io.BytesIO(files[0])).convert("RGB")
    crops = [np.asarray(picture.crop(box)) for box in ((0, 0, 32, 32), (96, 0, 128, 32), (0, 64, 32, 96))]
    np.testing.assert_array_equal(together[0].pixels[:3], crops)
    assert served[0] == pytest.approx(float(engine.logits(together[0].pixels).mean()), abs=1e-5)
    bands, rule = detector.manifest.bands, detector.rule
    assert bands is not None and bands.alpha_real is not None
    labels = Dataset(gridded).table(VAL, ["label"]).column("label").to_numpy()
    probabilities = rule.probabilities(np.array(served))
    assert (probabilities[labels == 0] >= bands.ai_from - 1e-6).mean() <= bands.alpha_real + 1 / 20


@given(
    st.tuples(st.integers(8, 400), st.integers(8, 400)),
    st.sampled_from((1, 4, 9)),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
@settings(max_examples=40)
def test_crops_lie_in_the_photo_are_pixels_of_it_and_reach_its_edges(
    size: tuple[int, int], count: int, margin: tuple[int, int]
) -> None:
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    framed = Image.new("RGB", (size[0] + 2 * margin[0], size[1] + 2 * margin[1]), (255, 255, 255))
    framed.paste(photo, margin)
    ways = Preparation(64, crops=count)
    boxes = [box for box in ways.boxes(framed) if box]
    inputs = ways.inputs(framed)
    assert inputs.shape == (count, 64, 64, 3) and len(boxes) == count
    side = min(64, *size)
    # of a speck on a canvas the whole is taken
    inner = (*margin, margin[0] + size[0], margin[1] + size[1]) if min(size) > 30 else (0, 0, *framed.size)
    for (left, top, right, bottom), made in zip(boxes, inputs, strict=True):
        assert right - left == bottom - top and left >= 0 and top >= 0
        assert inner[0] <= left and inner[1] <= top and right <= inner[2] and bottom <= inner[3]
        if side == 64:
            np.testing.assert_array_equal(made, np.asarray(framed.crop((left, top, right, bottom))))
    if count > 1 and min(size) > 30:
        ends = min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)
        assert ends == inner


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 1)), min_size=2, max_size=60))
@settings(max_examples=60)
def test_pairs_stay_together_and_nothing_is_seen_twice(photos: list[tuple[str, int]]) -> None:
    sources, labels = np.array([s for s, _ in photos]), np.array([label for _, label in photos], dtype=np.float32)
    order = paired_order(sources, labels, (3, 1), 0, 1)
    assert np.array_equal(order, paired_order(sources, labels, (3, 1), 0, 1))
    assert len(order) == len(photos) // 2 * 2 == len(set(order.tolist()))
    units = order.reshape(-1, 2)
    paired = sum(bool(sources[a]) and sources[a] == sources[b] and labels[a] != labels[b] for a, b in units.tolist())
    possible = sum(
        min(sum(s == name and x == label for s, x in photos) for label in (0, 1)) for name in ("a", "b", "c", "d")
    )
    assert paired >= possible
    shards = [paired_order(sources, labels, (3, 1), rank, 2) for rank in range(2)]
    assert len(shards[0]) == len(shards[1]) and not set(shards[0].tolist()) & set(shards[1].tolist())


@pytest.mark.parametrize(
    ("knobs", "words"),
    [({"pairs": True, "batch_size": 15}, "even batch_size"), ({"crops": 3}, "crops"), ({"views": "crops"}, "views")],
)
def test_what_makes_no_sense_is_refused(knobs: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainConfig.model_validate(knobs)
