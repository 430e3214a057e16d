"""JPEGs of many scans of which an early one is cut short while all later ones are there."""

import io

import numpy as np
import pytest
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
    # the last one is where a download breaks off, which other tests try
    for number, scan in enumerate(scans[:-1]):
        for kept in (0.05, 0.5, 0.85):
            damaged = _cut(data, scan, kept)
            if scan in painting:
                with pytest.raises(ImageRefusedError, match="of its rows could be read") as refused:
                    decode(damaged)
                assert refused.value.reason == "corrupt", number
            else:
                # finer detail alone: a browser shows a picture that one takes for the whole
                judged = np.asarray(decode(damaged).rgb, np.int16)
                assert (np.abs(judged - whole).mean(axis=(1, 2)) < 12).all(), number
