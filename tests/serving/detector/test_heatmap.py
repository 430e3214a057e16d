"""The heatmap as it is drawn: readable on any photo, no finer than it is."""

import numpy as np
import pytest
from PIL import Image

from serving.detector.heatmap import AGAINST, FOR, cells, encode_png, is_fine, overlay, shown

GRID = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=np.float32)


def hue(pixels: np.ndarray) -> np.ndarray:
    """How far each pixel is from grey, in levels."""
    wide = pixels.astype(int)
    return np.asarray(wide.max(axis=-1) - wide.min(axis=-1))


@pytest.mark.parametrize("colour", [(255, 128, 0), (255, 255, 255), (0, 0, 0), (120, 40, 200), (128, 128, 128)])
def test_heat_is_seen_on_a_photo_of_any_colour_and_nothing_else_has_one(colour: tuple[int, int, int]) -> None:
    photo = Image.new("RGB", (90, 60), colour)
    drawn = np.asarray(overlay(photo, GRID))
    assert drawn.shape == (60, 90, 3)
    assert hue(drawn[2:18, 62:88]).min() > 100
    assert hue(drawn[:, :60]).max() == 0 and hue(drawn[22:]).max() == 0
    both = np.asarray(overlay(photo, GRID, 1.0, against=True))
    assert (np.abs(both[10, 80].astype(int) - FOR) <= 1).all()
    assert (np.abs(both[50, 10].astype(int) - AGAINST) <= 1).all()


def test_cells_are_drawn_as_they_are_with_lines_between() -> None:
    drawn = np.asarray(overlay(Image.new("RGB", (90, 60), (90, 90, 90)), GRID)).astype(int)
    inside = drawn[1:19, 61:89]
    assert (inside == inside[0, 0]).all()
    assert (drawn[30, 30] > drawn[30, 25]).all() and (drawn[20, 10] > drawn[15, 10]).all()
    tiny = np.asarray(overlay(Image.new("RGB", (20, 20)), np.zeros((4, 4), dtype=np.float32)))
    assert len(np.unique(tiny)) == 1


def test_a_map_without_any_heat_is_a_grey_photo() -> None:
    drawn = overlay(Image.new("RGB", (80, 80), (200, 10, 10)), np.full((2, 2), -1.0, dtype=np.float32))
    assert hue(np.asarray(drawn)).max() == 0
    assert encode_png(drawn).startswith(b"\x89PNG")


def test_a_map_inside_borders_is_as_fine_as_what_the_model_saw() -> None:
    framed = np.zeros((14, 14), dtype=np.float32)
    framed[4:8, 4:8] = 0.5
    assert cells(framed) == (4, 4) and not is_fine(framed)
    framed[3:10, 2:9] = -0.1
    assert cells(framed) == (7, 7) and is_fine(framed)


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 32), (256, 128)), ((300, 400), (300, 400)), ((9, 2048), (2, 512))]
)
def test_a_heatmap_without_a_wish_is_as_large_as_the_picture_within_bounds(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = shown(Image.new("RGB", size))
    assert picture.size == overlay(picture, np.ones((4, 4), dtype=np.float32)).size == expected
