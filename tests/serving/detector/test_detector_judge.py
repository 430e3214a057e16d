"""`judge`, `judge_all` and `explain`: bytes in, the same answer by every way."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.detector.detector import Detector
from serving.platform.errors import ImageRefusedError
from tests.bundles import jpeg

FILES = [jpeg(level) for level in (20, 90, 140, 230)]


@pytest.fixture(scope="module")
def detector(toy_bundle: Path) -> Detector:
    return Detector.load(toy_bundle)


def test_one_by_one_together_and_explained_are_one_answer(detector: Detector) -> None:
    alone = [detector.judge(data) for data in FILES]
    together = detector.judge_all(FILES)
    explained = [detector.explain(data).judgement for data in FILES]
    for one, many, shown in zip(alone, together, explained, strict=True):
        assert not isinstance(many, ImageRefusedError)
        assert one.verdict.prediction == many.verdict.prediction == shown.verdict.prediction
        np.testing.assert_allclose([many.logit, shown.logit], one.logit, atol=1e-5)
        np.testing.assert_array_equal(one.pixels, many.pixels)
        assert one.info == many.info == shown.info
        assert one.pixels.shape == (1, detector.input_px, detector.input_px, 3)


def test_a_refused_image_takes_its_own_place_and_no_other(detector: Detector) -> None:
    first, broken, last = detector.judge_all([FILES[0], b"no image", FILES[3]])
    assert isinstance(broken, ImageRefusedError)
    assert not isinstance(first, ImageRefusedError)
    assert not isinstance(last, ImageRefusedError)
    assert (first.verdict.prediction, last.verdict.prediction) == ("real", "ai_generated")
    assert detector.judge_all([]) == []
    with pytest.raises(ImageRefusedError) as refused:
        detector.judge(b"no image")
    assert (refused.value.reason, str(refused.value)) == (broken.reason, str(broken))


def test_an_explanation_has_the_photo_and_its_overlay_at_the_size_that_was_asked_for(detector: Detector) -> None:
    explanation = detector.explain(FILES[3], side_px=96)
    assert max(explanation.drawn.photo.size) == 96
    overlay = Image.open(BytesIO(explanation.drawn.overlay))
    assert (overlay.format, overlay.size) == ("PNG", explanation.drawn.photo.size)
    assert (np.asarray(overlay.convert("RGB")) != np.asarray(explanation.drawn.photo)).any()
