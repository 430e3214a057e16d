"""The decoder on files of every kind: what a browser shows is judged, what is damaged is named."""

import io
import random
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serving.detector.image import ImageLimits, decode, jpeg_segments, kind_of, sniff
from serving.platform.errors import ImageRefusedError
from tests import photos
from tests.odd_photos import odd_photos
from tests.photos import (
    chunk,
    in_profile,
    photo,
    pixels,
    saved,
    turned,
    wide_gamut,
    with_chunks,
    with_riff,
    with_segment,
)

CHEAP = settings(derandomize=True, suppress_health_check=list(HealthCheck), max_examples=80)


@pytest.mark.parametrize("name", [name for name in photos.cases() if not name.startswith("exif_0")])
def test_each_file_is_shown_or_refused_as_it_should(name: str) -> None:
    case = photos.cases()[name]
    if case.refused:
        with pytest.raises(ImageRefusedError) as refused:
            decode(case.data)
        assert refused.value.reason == case.refused
        assert "object at 0x" not in str(refused.value) and "\n" not in str(refused.value)
        return
    found, wanted = pixels(case.data), pixels(photos.cases()[case.same_as or case.near].data)
    assert found.shape == wanted.shape
    difference = np.abs(found - wanted)
    assert difference.max() == 0 if case.same_as else difference.mean() < 3.0


@pytest.mark.parametrize("name", odd_photos())
def test_odd_files_are_shown_or_refused_as_in_browsers(name: str) -> None:
    case = odd_photos()[name]
    if case.refused:
        with pytest.raises(ImageRefusedError) as refused:
            decode(case.data)
        assert refused.value.reason == case.refused
        return
    found, wanted = pixels(case.data), pixels(odd_photos()[case.same_as or case.near].data)
    assert found.shape == wanted.shape
    difference = np.abs(found - wanted)
    assert difference.max() == 0 if case.same_as else difference.mean() < 1.0


def test_random_exif_blocks_turn_the_picture_and_refuse_none() -> None:
    wanted = pixels(photos.cases()["turned.jpg"].data)
    for number in range(300):
        assert np.array_equal(pixels(photos.cases()[f"exif_{number:03}.jpg"].data), wanted)


JPEG, PNG, WEBP = saved("JPEG", quality=90, dpi=(72, 72)), saved("PNG"), saved("WEBP", lossless=True)
PREFIXES = (
    b"Exif\0\0",
    b"Exif\0\0II*\0\x08\0\0\0",
    b"http://ns.adobe.com/xap/1.0/\0",
    b"ICC_PROFILE\0\1\1",
    b"MPF\0",
    b"",
)
SHOWN = {"jpeg": pixels(JPEG), "png": pixels(PNG), "webp": pixels(WEBP)}


@CHEAP
@given(
    st.sampled_from(["jpeg", "png", "webp"]),
    st.sampled_from(PREFIXES),
    st.sampled_from([b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"sRGB", b"caBX", b"acTL", b"prVt"]),
    st.binary(max_size=200),
    st.booleans(),
)
def test_random_metadata_never_changes_what_is_judged(
    fmt: str, prefix: bytes, kind: bytes, body: bytes, broken: bool
) -> None:
    # an orientation that is valid by chance would turn the picture rightly
    body = body.replace(b"\x12\x01", b"").replace(b"\x01\x12", b"")
    if fmt == "jpeg":
        data = with_segment(JPEG, 0xE0 + len(body) % 16 if len(body) % 16 not in (0, 14) else 0xFE, prefix + body)
    elif fmt == "png":
        data = with_chunks(PNG, chunk(kind, prefix + body, broken))
    else:
        data = with_riff(WEBP, random.Random(len(body)).choice([b"EXIF", b"XMP ", b"ICCP", b"abcd"]), prefix + body)
    assert np.array_equal(pixels(data), SHOWN[fmt])


CUT = {
    "baseline": saved("JPEG", quality=90),
    "restart": saved("JPEG", quality=90, restart_marker_rows=1),
    "progressive": saved("JPEG", quality=90, progressive=True),
    "png": PNG,
    "lossless": WEBP,
    "lossy": saved("WEBP", quality=90),
}
WHOLE = {name: pixels(data) for name, data in CUT.items()}


@CHEAP
@given(st.sampled_from(sorted(CUT)), st.floats(0.02, 1.0), st.booleans())
def test_truncation_is_judged_with_nearly_all_rows_or_refused(name: str, kept: float, closed: bool) -> None:
    whole = CUT[name]
    data = whole[: int(kept * len(whole))] + (b"\xff\xd9" if closed and name in ("baseline", "progressive") else b"")
    try:
        found = pixels(data)
    except ImageRefusedError as error:
        assert error.reason == "corrupt"
        assert len(data) < len(whole)
    else:
        # a progressive file that says it ends before its last scans has all of its rows, a little coarser
        near = 8 if name == "progressive" and closed else 2
        rows = (np.abs(found - WHOLE[name]).mean(axis=(1, 2)) <= near).mean()
        assert rows >= 0.94


@pytest.mark.parametrize("closed", [b"", b"\xff\xd9"])
def test_a_harmless_warning_does_not_hide_that_rows_are_missing(closed: bytes) -> None:
    """The decoder tells of its first warning only; here it is one of restart markers, or of the scan's header."""
    whole, start = CUT["restart"], CUT["restart"].index(b"\xff\xda")
    for marker in re.finditer(rb"\xff[\xd0-\xd7]", whole[start:]):
        for end in (start + marker.start(), start + marker.end()):
            with pytest.raises(ImageRefusedError, match="could be read"):
                pixels(whole[:end] + closed)
    header = CUT["baseline"].index(b"\xff\xda")
    odd = CUT["baseline"][: header + 12] + b"\x3e" + CUT["baseline"][header + 13 :]
    assert np.array_equal(pixels(odd), WHOLE["baseline"])
    with pytest.raises(ImageRefusedError, match="could be read"):
        pixels(odd[: len(odd) // 2] + closed)


@pytest.mark.parametrize("name", ["baseline", "png", "progressive"])
def test_nothing_is_missing_of_photographs_with_flat_grey_areas(name: str) -> None:
    """Half a picture of the very grey with which libjpeg fills what is missing, down to a picture of nothing else."""
    for share in (0.5, 0.9, 1.0):
        flat = np.asarray(photo()).copy()
        flat[int(240 * (1 - share)) :] = 128
        image = Image.fromarray(flat)
        data = saved("PNG", image) if name == "png" else saved("JPEG", image, progressive=name == "progressive")
        decode(data)
        if name != "png":
            decode(data[:-2])


def test_no_false_alarm_on_the_sample() -> None:
    import pyarrow.parquet as pq

    for row in pq.read_table(photos.SAMPLE, columns=["image"]).to_pylist():
        decode(row["image"]["bytes"])


def test_the_share_that_could_be_read_is_told() -> None:
    whole = saved("JPEG", quality=90)
    for kept, least, most in ((0.5, 20, 60), (0.8, 55, 90)):
        with pytest.raises(ImageRefusedError, match="rows could be read") as refused:
            decode(whole[: int(kept * len(whole))])
        assert least <= int(str(refused.value).split("only ")[1].split(" %")[0]) <= most


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientations_agree_with_pillow(kind: str, orientation: int) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = saved(kind, exif=turned(orientation), **options)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(pixels(data), np.asarray(wanted))


def test_every_picture_of_a_phone_fits(subtests: pytest.Subtests) -> None:
    small = photo().resize((84, 63))
    big = small.resize((4032, 3024), Image.Resampling.BILINEAR)
    wanted = np.asarray(big.resize((64, 48), Image.Resampling.BOX)).astype(np.int16)
    options: dict[str, dict[str, object]] = {
        "JPEG": {},
        "PNG": {"compress_level": 1},
        "WEBP": {"method": 0},
        "AVIF": {"speed": 10, "quality": 60},
    }
    for kind, how in options.items():
        with subtests.test(kind):
            found = decode(saved(kind, big, **how), target_px=224).rgb.resize((64, 48), Image.Resampling.BOX)
            assert np.abs(np.asarray(found).astype(np.int16) - wanted).mean() < 2.0


def test_a_large_webp_is_read_at_reduced_scale_and_what_does_not_fit_is_refused() -> None:
    huge = saved("WEBP", Image.new("RGB", (8600, 5800), (200, 90, 30)), method=0)
    found = decode(huge, target_px=224)
    assert found.info.width == 8600 and found.rgb.width < 8600
    with pytest.raises(ImageRefusedError) as refused:
        decode(huge)
    assert refused.value.reason == "too_many_pixels"


def test_limits_say_what_they_refuse() -> None:
    with pytest.raises(ImageRefusedError, match="bytes, the limit") as refused:
        decode(PNG, ImageLimits(max_bytes=100))
    assert refused.value.reason == "file_too_large"
    many = with_chunks(PNG, *[chunk(b"tEXt", b"a\0b")] * 70_000)
    with pytest.raises(ImageRefusedError, match="chunks"):
        decode(many)


@pytest.mark.parametrize(
    ("filling", "said"),
    [(b"\xff", ""), (b"\xff\x01", "more than 4,096 segments"), (b"\xff\0", "more than 4,096 segments")],
)
def test_a_jpeg_s_markers_are_walked_at_memory_speed_or_to_a_bound(filling: bytes, said: str) -> None:
    data = JPEG[:2] + filling * 1_000_000 + JPEG[2:]
    lines = 0

    def count(_frame: object, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        with pytest.raises(ImageRefusedError, match=said) if said else nullcontext():
            jpeg_segments.walk(data)
    finally:
        sys.settrace(before)
    assert lines < 100_000


def test_a_gif_s_pieces_are_bounded() -> None:
    plain = saved("GIF", Image.new("P", (64, 64)))
    at = plain.index(b"\x2c", 13 + 3 * 2 ** ((plain[10] & 7) + 1))
    crumbs = b"\x21\xfe" + b"\x01a" * 70_000 + b"\0"
    assert decode(plain[:at] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 300 + b"\0" + plain[at:]).info.width == 64
    with pytest.raises(ImageRefusedError, match="more than 65,536 pieces"):
        decode(plain[:at] + crumbs + plain[at:])


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"II*\0\x08\0\0\0\0\0", "a TIFF picture"),
        (b"BM" + bytes(60), "a BMP picture"),
        (b"\xff\x0a", "a JPEG XL picture"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a Canon raw photo"),
        (b"FUJIFILMCCD-RAW 0201", "a Fujifilm raw photo"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isom", "a video or other ISO media file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"PK\x03\x04" + bytes(9), "a ZIP archive or office document"),
        (b"a,b\n1,2\n", "a text"),
        (b"\0\1\2\3", "a file of an unknown kind"),
    ],
)
def test_other_kinds_are_refused_by_their_names(head: bytes, words: str) -> None:
    assert sniff(head) is None
    with pytest.raises(ImageRefusedError, match="save it as JPEG") as refused:
        decode(head)
    assert refused.value.reason == "unsupported_type"
    assert f"the file is {words} (" in str(refused.value)


def test_sniffing_never_fails() -> None:
    draw = random.Random(5)
    heads = [photos.HEIC[:32], b"II*\0", b"MM\0*", PNG[:40], b"RIFF", b"GIF89a", b"\0\0\0\x20ftypmif1"]
    for _ in range(2000):
        data = draw.choice(heads) + draw.randbytes(draw.randint(0, 60))
        assert kind_of(data).name


def test_the_first_frame_is_shown_where_the_animation_puts_it() -> None:
    first = photo().resize((100, 80))
    for kind in ("GIF", "WEBP", "PNG"):
        frames = saved(kind, first, save_all=True, append_images=[Image.new("RGB", (100, 80), "white")] * 2)
        assert np.abs(pixels(frames) - np.asarray(first)).mean() < 6.0
    seen = first.quantize(32)
    clear = saved("GIF", seen, transparency=seen.getpixel((5, 5)))
    assert tuple(pixels(clear)[5, 5]) == (255, 255, 255)


def test_the_page_shows_the_picture_as_it_is_judged() -> None:
    from serving.detector import heatmap
    from serving.ui.heatmap import SIDES_PX, shown

    wide = saved("PNG", in_profile(photos.colourful(), wide_gamut()), icc_profile=wide_gamut())
    for data in (wide, photos.HEIC, saved("JPEG", exif=turned(6))):
        judged = heatmap.shown(decode(data).rgb, sides_px=SIDES_PX)
        assert np.array_equal(np.asarray(shown(data)), np.asarray(judged))
