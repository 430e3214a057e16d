"""Uniform borders: found in any colour and nesting, a plain picture left alone, the heatmap back on the whole."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.detector.framing import content_box, whole_grid
from serving.detector.preprocess import to_input

_rng = np.random.default_rng(4)
PHOTO = Image.fromarray(_rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))


def canvas(
    size: tuple[int, int], at: tuple[int, int], colour: tuple[int, int, int], photo: Image.Image = PHOTO
) -> Image.Image:
    made = Image.new("RGB", size, colour)
    made.paste(photo, at)
    return made


@given(
    st.integers(0, 190),
    st.integers(0, 190),
    st.integers(0, 190),
    st.integers(0, 190),
    st.tuples(*[st.integers(0, 255)] * 3),
)
@settings(max_examples=60)
def test_a_canvas_of_any_colour_gives_the_photo_back(
    left: int, top: int, right: int, bottom: int, colour: tuple[int, int, int]
) -> None:
    made = canvas((160 + left + right, 120 + top + bottom), (left, top), colour)
    expected = (left, top, left + 160, top + 120)
    found = content_box(made)
    if left == top == right == bottom == 0:
        assert found is None
    else:
        # a line of the photo may happen to look like border; with noise it does not
        assert found == expected
        assert np.array_equal(to_input(made, 96), to_input(PHOTO, 96))


def test_frames_in_frames_come_off() -> None:
    letterbox = canvas((160, 200), (0, 40), (0, 0, 0))
    made = canvas((400, 400), (100, 80), (255, 255, 255), letterbox)
    assert content_box(made) == (100, 120, 260, 240)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (90, 130, 70)])
def test_a_plain_picture_and_a_speck_on_one_are_left_alone(colour: tuple[int, int, int]) -> None:
    plain = Image.new("RGB", (300, 200), colour)
    assert content_box(plain) is None
    assert content_box(canvas((300, 200), (150, 90), colour, PHOTO.resize((5, 5)))) is None


def test_compression_hides_no_border() -> None:
    made = canvas((320, 240), (80, 60), (255, 255, 255))
    for quality in (50, 75, 95):
        buffer = io.BytesIO()
        made.save(buffer, "JPEG", quality=quality)
        box = content_box(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
        assert box is not None
        assert all(abs(a - b) <= 8 for a, b in zip(box, (80, 60, 240, 180), strict=True)), (quality, box)


def test_a_large_canvas_is_found_within_a_cell() -> None:
    made = canvas((4000, 3000), (1000, 700), (255, 255, 255), PHOTO.resize((2000, 1500)))
    box = content_box(made)
    assert box is not None
    assert all(abs(a - b) <= 3000 // 256 for a, b in zip(box, (1000, 700, 3000, 2200), strict=True))


def test_a_model_trained_without_trimming_sees_the_canvas() -> None:
    made = canvas((320, 240), (80, 60), (255, 255, 255))
    assert (to_input(made, 64, trim=False)[0] == 255).all()
    assert not (to_input(made, 64)[0] == 255).all()


def test_the_map_of_the_photo_becomes_one_of_the_picture() -> None:
    grid = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    whole = whole_grid(grid, (100, 50, 200, 150), (400, 200))
    assert whole.shape == (8, 16)
    assert np.array_equal(whole[2:6, 4:8], grid)
    assert whole.sum() == grid.sum()
    assert whole_grid(grid, None, (400, 200)) is grid
    assert max(whole_grid(grid, (0, 0, 13, 13), (100, 100)).shape) <= 64
