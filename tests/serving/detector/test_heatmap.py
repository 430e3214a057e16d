"""The heatmap as it is drawn: readable on any photo, no finer than it is."""

import numpy as np
import pytest
from PIL import Image

from serving.detector.heatmap import AGAINST, FOR, cells, encode_jpeg, encode_png, is_fine, overlay, shown

GRID = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=np.float32)


def drawn_on(photo: Image.Image, grid: np.ndarray, opacity: float = 0.7, *, against: bool = False) -> np.ndarray:
    return np.asarray(overlay(photo, grid, opacity, against=against).convert("RGB")).astype(int)


def hue(pixels: np.ndarray) -> np.ndarray:
    """How far each pixel is from grey, in levels."""
    return np.asarray(pixels.max(axis=-1) - pixels.min(axis=-1))


@pytest.mark.parametrize("colour", [(255, 128, 0), (255, 255, 255), (0, 0, 0), (120, 40, 200), (128, 128, 128)])
def test_heat_is_seen_on_a_photo_of_any_colour_and_nothing_else_has_one(colour: tuple[int, int, int]) -> None:
    photo = Image.new("RGB", (90, 60), colour)
    drawn = drawn_on(photo, GRID)
    assert drawn.shape == (60, 90, 3)
    assert hue(drawn[2:18, 62:88]).min() > 100
    assert hue(drawn[:, :60]).max() == 0 and hue(drawn[22:]).max() == 0
    both = drawn_on(photo, GRID, 1.0, against=True)
    assert (np.abs(both[10, 80] - FOR) <= 1).all()
    assert (np.abs(both[50, 10] - AGAINST) <= 1).all()


@pytest.mark.parametrize(
    ("opacity", "against", "levels"), [(0.7, False, 3), (0.7, True, 4), (0.0, False, 3), (1.0, True, 4)]
)
def test_a_palette_is_enough_for_every_grey_of_a_photo_under_every_heat(
    opacity: float, against: bool, levels: int
) -> None:
    greys = np.tile(np.arange(256, dtype=np.uint8), (7, 1))
    heat = np.array([[-1.0], [-0.5], [0.0], [1 / 3], [0.5], [2 / 3], [1.0]], dtype=np.float32)
    found = overlay(Image.fromarray(greys).convert("RGB"), heat, opacity, against=against)
    assert found.mode == "P"
    share = opacity * (np.abs(heat) if against else heat.clip(min=0.0))[:, :, None]
    grey = 48 + greys[:, :, None].astype(float) * 184 / 255
    exact = grey * (1 - share) + np.where(heat[:, :, None] < 0, AGAINST, FOR) * share
    assert np.abs(np.asarray(found.convert("RGB")) - exact).max() <= levels


def test_cells_are_drawn_as_they_are_with_lines_between() -> None:
    drawn = drawn_on(Image.new("RGB", (90, 60), (90, 90, 90)), GRID)
    inside = drawn[1:19, 61:89]
    assert (inside == inside[0, 0]).all()
    assert (drawn[30, 30] > drawn[30, 25]).all() and (drawn[20, 10] > drawn[15, 10]).all()
    assert hue(drawn[30, :]).max() == 0 and (drawn[10, 60] != drawn[10, 65]).all(), "a line has no heat"
    tiny = drawn_on(Image.new("RGB", (20, 20)), np.zeros((4, 4), dtype=np.float32))
    assert len(np.unique(tiny)) == 1


def test_a_map_without_any_heat_is_a_grey_photo() -> None:
    photo, grid = Image.new("RGB", (80, 80), (200, 10, 10)), np.full((2, 2), -1.0, dtype=np.float32)
    assert hue(drawn_on(photo, grid)).max() == 0
    assert encode_png(overlay(photo, grid)).startswith(b"\x89PNG")
    assert encode_jpeg(overlay(photo, grid)).startswith(b"\xff\xd8\xff")


def test_a_map_inside_borders_is_as_fine_as_what_the_model_saw() -> None:
    framed = np.zeros((14, 14), dtype=np.float32)
    framed[4:8, 4:8] = 0.5
    assert cells(framed) == (4, 4) and not is_fine(framed)
    framed[3:10, 2:9] = -0.1
    assert cells(framed) == (7, 7) and is_fine(framed)


@pytest.mark.parametrize(("size", "expected"), [((64, 32), (192, 96)), ((300, 400), (300, 400)), ((9, 2048), (2, 512))])
def test_a_heatmap_without_a_wish_is_as_large_as_the_picture_within_bounds(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = shown(Image.new("RGB", size))
    assert picture.size == overlay(picture, np.ones((4, 4), dtype=np.float32)).size == expected
