"""The grid: what each corruption does to a picture, which images it is tried on, and that no score changes places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from components.artifacts.dataset import TEST, Dataset
from components.evaluate.config import CorruptionName, EvaluateConfig
from components.evaluate.metrics import Judged
from components.evaluate.robustness import Corruption, cell, grid, note, subsample
from components.evaluate.scoring import Plan, score_split
from components.evaluate.slices import Frame
from serving.detector.decision import DecisionRule
from serving.detector.detector import Detector
from serving.detector.framing import content_box
from serving.detector.image import decode
from tests.bundles import make_bundle

CELLS = grid(EvaluateConfig())
FRAMING = {"canvas", "letterbox", "collage", "turn", "crop"}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8))
    return coarse.resize((90, 72), Image.Resampling.BICUBIC)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("corruption", [c for c in CELLS if c.name not in FRAMING], ids=lambda c: f"{c.name} {c.label}")
def test_a_corruption_changes_the_picture_keeps_its_size_and_repeats(
    corruption: Corruption, photo: Image.Image
) -> None:
    found = corruption.apply(photo, (0, 5))
    assert found.mode == "RGB"
    assert found.size == photo.size
    assert 0.0 < difference(found, photo) < 40.0
    assert difference(found, corruption.apply(photo, (0, 5))) == 0.0


def test_framing_keeps_the_photo_at_its_resolution(photo: Image.Image) -> None:
    framed: dict[str, Image.Image] = {c.name: c.apply(photo, (0, 5)) for c in CELLS if c.name in FRAMING}
    assert set(framed) == FRAMING
    assert {name: picture.size for name, picture in framed.items()} == {
        "canvas": (180, 144),
        "letterbox": (90, 120),
        "collage": (180, 144),
        "turn": (72, 90),
        "crop": (62, 50),
    }
    assert difference(framed["canvas"].crop((45, 36, 135, 108)), photo) < 6.0
    assert difference(framed["letterbox"].crop((0, 24, 90, 96)), photo) < 6.0
    assert difference(framed["collage"].crop((90, 72, 180, 144)), photo) == 0.0
    assert difference(framed["turn"].transpose(Image.Transpose.ROTATE_270), photo) == 0.0
    # the model sees the photo, with at most a few pixels of what compression left around it
    for name, true in (("canvas", (45, 36, 135, 108)), ("letterbox", (0, 24, 90, 96))):
        box = content_box(framed[name])
        assert box is not None
        assert all(abs(a - b) <= 3 for a, b in zip(box, true, strict=True)), (name, box)


def test_levels_of_framing_are_checked() -> None:
    for name, level in (("turn", 45), ("collage", 2.5), ("canvas", 1.5)):
        with pytest.raises(ValueError, match=name):
            EvaluateConfig.model_validate({"robustness": {name: [level]}})


@pytest.mark.parametrize(
    "levels", [("jpeg", 95, 50), ("webp", 95, 30), ("resize", 0.75, 0.4), ("blur", 0.4, 1.5), ("noise", 0.02, 0.1)]
)
def test_a_stronger_level_changes_more(levels: tuple[CorruptionName, float, float], photo: Image.Image) -> None:
    name, mild, strong = levels
    weak, much = (Corruption(name, level).apply(photo, (0, 1)) for level in (mild, strong))
    assert difference(weak, photo) < difference(much, photo)


def test_noise_has_the_stated_sigma_and_differs_between_images() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    noisy = Corruption("noise", 0.04).apply(grey, (0, 1))
    assert np.asarray(noisy, dtype=float).std() == pytest.approx(0.04 * 255, rel=0.02)
    assert difference(noisy, Corruption("noise", 0.04).apply(grey, (0, 2))) > 1.0


def test_the_default_grid_has_what_the_contract_names() -> None:
    labels = {(c.name, c.label) for c in CELLS}
    assert {("jpeg", f"q{q}") for q in (95, 85, 75, 60, 50)} <= labels
    assert {("resize", f"{scale}x and back") for scale in ("0.5", "0.75", "1.5")} <= labels
    assert {("blur", "sigma 0.4"), ("blur", "sigma 0.6"), ("webp", "q80"), ("noise", "sigma 0.04")} <= labels


@pytest.mark.parametrize(("share", "expected"), [(0.5, (20, 20)), (0.05, (5, 35)), (0.95, (35, 5))])
def test_the_subsample_is_balanced_as_far_as_the_classes_reach(share: float, expected: tuple[int, int]) -> None:
    positive = np.arange(100) < share * 100
    rows = subsample(positive, EvaluateConfig(robustness_images=40))
    assert (int(positive[rows].sum()), int((~positive[rows]).sum())) == expected
    assert (np.diff(rows) > 0).all()


def test_the_subsample_is_fixed_by_the_seed() -> None:
    positive = np.arange(100) < 50
    first, again = (subsample(positive, EvaluateConfig(robustness_images=40)) for _ in range(2))
    other = subsample(positive, EvaluateConfig(robustness_images=40, seed=1))
    assert (first == again).all()
    assert (first != other).any()


def test_zero_means_every_image() -> None:
    assert len(subsample(np.arange(10) < 5, EvaluateConfig(robustness_images=0))) == 10


def test_the_note_says_what_was_left_out() -> None:
    assert "400 of the 1,200" in note(400, 1200)
    assert "Every one of the 1,200" in note(1200, 1200)


def test_every_score_stands_in_its_place(
    dataset: Path, toy_bundle: Path, tmp_path: Path, quick: EvaluateConfig
) -> None:
    """Threads, chunks, corruptions and models of different input size and views against a plain loop."""
    others = make_bundle(tmp_path / "large", input_px=48, seed=3), make_bundle(tmp_path / "native", crops=4)
    detectors = [Detector.load(bundle) for bundle in (toy_bundle, *others)]
    data = Dataset(dataset)
    frame = Frame.read(data, TEST)
    rows = subsample(frame.positive, quick)
    cells = (Corruption("jpeg", 50), Corruption("noise", 0.1), Corruption("resize", 0.5))
    seen: list[int] = []
    found = score_split(data, frame, Plan(detectors, cells, rows), quick, seen.append)
    files = list(data.images(TEST))
    for model, detector in enumerate(detectors):
        clean = [detector.logits(detector.pixels(file)[None])[0] for file in files]
        np.testing.assert_allclose(found.clean[model], clean, rtol=1e-4, atol=1e-5)
        for index, corruption in enumerate(cells):
            pictures = [corruption.apply(decode(files[row]).rgb, (quick.seed, int(row))) for row in rows]
            expected = [detector.logits(detector.preparation.inputs(p)[None])[0] for p in pictures]
            np.testing.assert_allclose(found.corrupted[model, index], expected, rtol=1e-4, atol=1e-5)
    assert sum(seen) == Plan(detectors, cells, rows).forward_passes(len(frame)) == 3 * (180 + 3 * 40)


def test_a_cell_is_paired_with_the_clean_images() -> None:
    positive = np.array([True, True, False, False])
    said = {"clean": [1, 1, 0, 0], "corrupted": [1, 0, 1, 0], "champion": [0, 0, 0, 0]}
    judged = {k: Judged.of(positive, np.where(np.array(v), 2.0, -2.0), DecisionRule()) for k, v in said.items()}
    found = cell("jpeg", "q50", judged["clean"], judged["corrupted"], judged["champion"], EvaluateConfig())
    assert (found.accuracy.value, found.flip_rate) == (0.5, 0.5)
    assert found.fpr is not None
    assert found.fpr.value == 0.5
    assert found.accuracy_change is not None
    assert found.accuracy_change.value == -0.5
    assert found.champion_accuracy is not None
    assert found.champion_accuracy.value == 0.5
    assert found.champion_difference is not None
    assert found.champion_difference.value == 0.0


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"robustness": {"jpeg": [101]}}, "jpeg: level 101 is outside 1 to 100"),
        ({"robustness": {"rain": [1]}}, "rain"),
        ({"champion_uri": "models:/{name}@champion"}, "only field"),
        ({"bootstrap": 5}, "bootstrap"),
        ({"threads": "many"}, "threads"),
    ],
)
def test_a_wrong_knob_is_named(section: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EvaluateConfig.model_validate(section)


def test_the_section_survives_a_pipeline_parameter() -> None:
    as_floats = EvaluateConfig().model_dump(mode="json") | {"bootstrap_draws": 2000.0, "batch_size": 16.0}
    assert EvaluateConfig.model_validate(as_floats) == EvaluateConfig()
