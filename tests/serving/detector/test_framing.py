"""Uniform borders: found in any colour and nesting, a plain picture left alone, the heatmap back on the whole."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from serving.detector.framing import content_box, whole_grid
from serving.detector.image import decode
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


@given(st.integers(1, 12), st.integers(20, 400), st.floats(0.3, 1.0), st.floats(0.0, 1.0))
def test_every_cell_of_the_photo_is_on_the_map_of_the_whole(cells: int, side: int, share: float, place: float) -> None:
    length = max(1, round(share * side))
    start = round(place * (side - length))
    grid = np.arange(1, cells * cells + 1, dtype=np.float32).reshape(cells, cells)
    whole = whole_grid(grid, (start, start, start + length, start + length), (side, side))
    assert set(grid.ravel().tolist()) == set(whole.ravel().tolist()) - {0.0}


def sent(picture: Image.Image, quality: int, subsampling: int) -> Image.Image:
    """As it comes from a shop; quality 100 stands for PNG."""
    buffer = io.BytesIO()
    if quality == 100:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return decode(buffer.getvalue()).rgb


sides = st.integers(0, 60)
colours = st.one_of(
    st.sampled_from([(255, 255, 255), (0, 0, 0), (18, 18, 20), (245, 245, 245)]), st.tuples(*[st.integers(0, 255)] * 3)
)
files = st.tuples(st.sampled_from([50, 75, 90, 100]), st.sampled_from([0, 2]))


@given(
    st.tuples(sides, sides, sides, sides),
    colours,
    st.sampled_from(["flat", "noise", "rounded", "shadow", "transparent"]),
    files,
    st.integers(0, 2**16),
)
@settings(max_examples=120)
def test_a_margin_of_any_kind_costs_nothing_of_the_photo(
    margins: tuple[int, int, int, int], colour: tuple[int, int, int], kind: str, file: tuple[int, int], seed: int
) -> None:
    """Odd and one-sided margins; and what compression, a card's corners and its shadow leave stays near the photo."""
    rng = np.random.default_rng(seed)
    left, top, right, bottom = margins
    size = (160 + left + right, 120 + top + bottom)
    backdrop = Image.new("RGB", size, colour)
    mask, soft = Image.new("L", PHOTO.size, 255), 0
    if kind == "noise":
        noisy = np.asarray(backdrop, dtype=float) + rng.normal(0, 3, (*size[::-1], 3))
        backdrop = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    elif kind == "rounded":
        mask = Image.new("L", PHOTO.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, 159, 119), radius=12, fill=255)
    elif kind == "shadow":
        shade = Image.new("L", size, 0)
        shade.paste(120, (left + 3, top + 3, left + 163, top + 123))
        backdrop.paste((0, 0, 0), (0, 0), shade.filter(ImageFilter.GaussianBlur(4)))
        soft = 16
    backdrop.paste(PHOTO, (left, top), mask)
    if kind == "transparent":
        file, colour = (100, 0), (255, 255, 255)
        clear = Image.new("L", size, 0)
        clear.paste(255, (left, top, left + 160, top + 120))
        backdrop.putalpha(clear)
    box = content_box(sent(backdrop, *file)) or (0, 0, *size)
    # a row of blocks is what compression may spread, twice that where colours have half the resolution
    near = soft + (0 if file[0] == 100 else 16 if file[1] else 8)
    photo = (left, top, left + 160, top + 120)
    assert box[0] <= photo[0] and box[1] <= photo[1] and box[2] >= photo[2] and box[3] >= photo[3], "cut into"
    assert all(abs(a - b) <= near for a, b in zip(box, photo, strict=True)), (box, photo)


@given(
    st.sampled_from(["plain", "lit", "vignette", "grain"]),
    st.integers(70, 185),
    st.sampled_from([-70, -45, 45, 70]),
    st.tuples(st.integers(0, 120), st.integers(0, 80), st.integers(40, 79), st.integers(40, 79)),
    files,
    st.integers(0, 2**16),
)
@settings(max_examples=120)
def test_what_stands_on_a_studio_backdrop_is_kept_whole(
    kind: str, level: int, contrast: int, place: tuple[int, int, int, int], file: tuple[int, int], seed: int
) -> None:
    """The backdrop may go, plain or lit from above, dark at its corners or grainy; the object may not."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((160, 200)) / np.array([160, 200])[:, None, None]
    light = {"plain": 0 * x, "lit": 50 * y, "vignette": -60 * np.hypot(x - 0.5, y - 0.5), "grain": 0 * x}[kind]
    pixels = level + light + (rng.normal(0, 8, x.shape) if kind == "grain" else 0)
    left, top, width, height = place
    shape = ((np.arange(200) - left) / width * 2 - 1) ** 2 + (
        (np.arange(160)[:, None] - top) / height * 2 - 1
    ) ** 2 <= 1
    pixels = np.where(shape, pixels + contrast, pixels).clip(0, 255)
    picture = Image.fromarray(np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=2))
    box = content_box(sent(picture, *file))
    if box is None:
        return
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    # the last line of an ellipse is a few pixels, which compression blurs
    assert box[0] <= columns[0] + 2 and box[1] <= rows[0] + 2, (box, place)
    assert box[2] > columns[-1] - 2 and box[3] > rows[-1] - 2, (box, place)
