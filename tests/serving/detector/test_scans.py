"""JPEGs of many scans of which an early one is cut short while all later ones are there."""

import io

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image

from serving.detector.image import decode, jpeg_segments
from serving.platform.errors import ImageRefusedError


def _progressive(side: int) -> tuple[bytes, list[jpeg_segments.Scan]]:
    coarse = np.random.default_rng(0).integers(0, 255, (side // 10, side // 10, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, progressive=True)
    data = buffer.getvalue()
    return data, jpeg_segments.scans_of(data, jpeg_segments.walk(data).first_scan)


def _cut(data: bytes, scan: jpeg_segments.Scan, kept: float) -> bytes:
    found = jpeg_segments.MARKER.search(data, scan.data)
    assert found is not None
    return data[: scan.data + int((found.start() - scan.data) * kept)] + data[found.start() :]


@pytest.mark.parametrize("side", [200, 400])
def test_an_early_scan_cut_short_is_rows_missing_where_it_shows(side: int) -> None:
    data, scans = _progressive(side)
    whole = np.asarray(decode(data).rgb, np.int16)
    painting = jpeg_segments.painting(scans)
    assert [(scan.first, len(scan.components)) for scan in painting] == [(0, 3), (1, 1), (1, 1), (1, 1)]
    for number, scan in enumerate(scans):
        for kept in (0.05, 0.5, 0.85):
            judged = _judged(_cut(data, scan, kept))
            assert judged is None or scan not in painting, number
            # finer detail alone: what is judged is what one takes for the whole picture
            assert judged is None or (np.abs(judged - whole).mean(axis=(1, 2)) < 12).all(), number
    assert _judged(_cut(data, scans[6], 0.5)) is not None, "the averages' last bits do not show"


@pytest.mark.parametrize("side", [200, 400])
def test_a_warning_of_something_else_is_no_alarm(side: int) -> None:
    data, scans = _progressive(side)
    found = jpeg_segments.MARKER.search(data, scans[0].data)
    assert found is not None
    # libjpeg tells of bytes that nobody reads behind a scan
    odd = data[: found.start()] + b"\x55" * 40 + data[found.start() :]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(odd, strict=True)
    assert np.array_equal(np.asarray(decode(odd).rgb), np.asarray(decode(data).rgb))


def _judged(data: bytes) -> npt.NDArray[np.int16] | None:
    try:
        return np.asarray(decode(data).rgb, np.int16)
    except ImageRefusedError as refused:
        assert refused.reason == "corrupt"
        return None


def test_a_large_picture_of_far_too_many_scans_is_refused_before_its_first() -> None:
    data, scans = _progressive(200)
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * 50 + data[-2:]
    with pytest.raises(ImageRefusedError, match="rows could be read"):
        decode(many)  # a small one takes no time, and is looked at
    frame = many.index(b"\xff\xc2") + 5
    huge = many[:frame] + (6400).to_bytes(2, "big") * 2 + many[frame + 4 :]
    with pytest.raises(ImageRefusedError, match=f"has {len(scans) + 49} scans of 6400x6400 pixels") as refused:
        decode(huge)
    assert refused.value.reason == "corrupt"
