"""What is judged is what Chromium shows, pixel by pixel, and what Pillow with littleCMS makes of the same file."""

import base64
import io
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from serving.detector.image import decode
from serving.detector.image.profiles import _PRIMARIES, _SRGB_XY, _built
from serving.platform.errors import ImageRefusedError
from tests.odd_photos import odd_photos
from tests.photos import (
    cases,
    chunk,
    colourful,
    formula,
    grey_profile,
    in_profile,
    png16,
    saved,
    turned,
    wide_gamut,
    with_chunks,
)
from tests.serving.ui.chromium import CHROMIUM, FLAGS

pytestmark = pytest.mark.system

Pixels = np.ndarray
Shown = Callable[[bytes], Pixels | None]

DRAW: Final = """async (text) => {
  const url = URL.createObjectURL(new Blob([Uint8Array.from(atob(text), c => c.charCodeAt(0))]));
  const image = new Image();
  const shown = await new Promise(done => {
    image.onload = () => done(true); image.onerror = () => done(false); image.src = url;
  });
  if (!shown) return null;
  const canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext('2d', {colorSpace: 'srgb', willReadFrequently: true});
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let found = '';
  for (let at = 0; at < pixels.length; at += 32768)
    found += String.fromCharCode.apply(null, pixels.subarray(at, at + 32768));
  return [canvas.width, canvas.height, btoa(found)];
}"""


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    """What Chromium draws of a file over white, in sRGB; None where it draws nothing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--force-color-profile=srgb"])
        page = browser.new_page()

        def draw(data: bytes) -> Pixels | None:
            found = page.evaluate(DRAW, base64.b64encode(data).decode())
            if found is None:
                return None
            width, height, text = found
            drawn = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
            return drawn[..., :3].astype(np.int16)

        yield draw
        browser.close()


def ours(data: bytes) -> Pixels:
    """What is judged."""
    return np.asarray(decode(data).rgb).astype(np.int16)


def by_pillow(data: bytes) -> Pixels:
    """Pillow's own decoder, `exif_transpose` and littleCMS, over white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    icc = image.info.get("icc_profile")
    clear = image.mode in ("RGBA", "LA") or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if clear else None
    if image.mode in ("I;16", "I"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8))
    elif image.mode == "LA":
        image = image.getchannel("L")
    elif image.mode in ("P", "RGBA"):
        image = image.convert("RGB")
    if icc:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        moved = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        assert moved is not None
        image = moved
    image = image.convert("RGB")
    if alpha is not None:
        page = Image.new("RGB", image.size, "white")
        page.paste(image, mask=alpha)
        image = page
    return np.asarray(image).astype(np.int16)


def difference(one: Pixels, other: Pixels | None) -> float:
    """Mean difference in levels; 255 where they are not of one size."""
    return 255.0 if other is None or one.shape != other.shape else float(np.abs(one - other).mean())


PROFILES: Final = {
    "Display P3": (_PRIMARIES[12], 0.0),
    "linear P3": (_PRIMARIES[12], 1.0),
    "P3 of gamma 2.2": (_PRIMARIES[12], 2.2),
    "Rec. 2020": (_PRIMARIES[9], 0.0),
    "Rec. 2020 of gamma 2.4": (_PRIMARIES[9], 2.4),
    "linear Rec. 2020": (_PRIMARIES[9], 1.0),
    "linear sRGB": (_SRGB_XY, 1.0),
}
FORMATS: Final[dict[str, dict[str, Any]]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "speed": 9},
}


def reference_set() -> dict[str, bytes]:
    """Files whose meaning both references know."""
    image, grey = colourful(), colourful().convert("L")
    faded, faded_grey = image.copy(), grey.copy()
    for clear in (faded, faded_grey):
        clear.putalpha(Image.linear_gradient("L").resize(image.size))
    made = {f"orientation {o}, {f}": saved(f, image, exif=turned(o)) for o in range(1, 9) for f in ("JPEG", "PNG")}
    for name, (points, curve) in PROFILES.items():
        profile = _built(points, curve)
        moved = in_profile(image, profile)
        made |= {f"{name}, {f}": saved(f, moved, icc_profile=profile, **how) for f, how in FORMATS.items()}
    for gamma in (1.0, 1.8, 2.2):
        profile = grey_profile(gamma)
        made[f"grey of gamma {gamma}, PNG"] = saved("PNG", grey, icc_profile=profile)
        made[f"grey of gamma {gamma}, JPEG"] = saved("JPEG", grey, icc_profile=profile, quality=95)
        made[f"grey and alpha of gamma {gamma}"] = saved("PNG", faded_grey, icc_profile=profile)
    noise = np.random.default_rng(1).integers(-128, 128, (240, 320, 3))
    deep = (np.asarray(image).astype(np.int64) * 257 + noise).clip(0, 65535).astype(np.uint16)
    alpha = np.asarray(faded.getchannel("A")).astype(np.uint16)[..., None] * 257
    wide = np.asarray(in_profile(image, wide_gamut())).astype(np.uint16) * 257
    return made | {
        "CMYK": saved("JPEG", image.convert("CMYK"), quality=95),
        "alpha": saved("PNG", faded),
        "alpha in P3": saved("PNG", faded, icc_profile=wide_gamut()),
        "grey and alpha": saved("PNG", faded_grey),
        "16 bit, colour": png16(deep, 2),
        "16 bit, colour and alpha": png16(np.concatenate([deep, alpha], 2), 6),
        "16 bit, grey": png16(deep[..., :1], 0),
        "16 bit, grey and alpha": png16(np.concatenate([deep[..., :1], alpha], 2), 4),
        "16 bit, P3": png16(wide, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(wide_gamut()))),
        "8 bit, key": saved("PNG", image, transparency=(230, 20, 20)),
        "palette": saved("PNG", image.quantize(64)),
        "palette and alpha": saved("PNG", image.quantize(64), transparency=bytes(range(0, 256, 4))),
    }


def test_chromium_and_pillow_show_what_is_judged(shown: Shown, subtests: pytest.Subtests) -> None:
    for name, data in reference_set().items():
        with subtests.test(name):
            judged = ours(data)
            assert difference(judged, shown(data)) < 1
            assert difference(judged, by_pillow(data)) < 1


def browser_set() -> dict[str, bytes]:
    """Files of which Pillow knows less than Chromium: keys of 16 bits, gAMA, cHRM and cICP."""
    image = colourful()
    png = saved("PNG", image)
    keyed = np.asarray(image).astype(np.uint16) * 257
    keyed[60:150, 80:240] = (0x0100, 0x0200, 0x0300)
    wide = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    made = {
        "16 bit, colour key": png16(keyed, 2, chunk(b"tRNS", struct.pack(">3H", 0x100, 0x200, 0x300))),
        "16 bit, grey key": png16(keyed[..., :1], 0, chunk(b"tRNS", b"\1\0")),
        "16 bit, half a key": png16(keyed[..., :1], 0, chunk(b"tRNS", b"\0\1")),
        "cHRM alone": with_chunks(png, chunk(b"cHRM", wide)),
    }
    for gamma in (20000, 42000, 45455, 47000, 55556, 100000, 200000):
        one = chunk(b"gAMA", struct.pack(">I", gamma))
        made[f"gamma {gamma}"] = with_chunks(png, one)
        made[f"gamma {gamma}, grey"] = with_chunks(saved("PNG", image.convert("L")), one)
        made[f"gamma {gamma} and cHRM"] = with_chunks(png, one, chunk(b"cHRM", wide))
    known, curves = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22), (1, 2, 4, 5, 6, 7, 8, 9, 13, 14, 15, 17)
    for primaries, transfer in {(p, t) for p in known for t in curves if p == 1 or t == 13}:
        points = chunk(b"cICP", bytes([primaries, transfer, 0, 1]))
        made[f"cICP {primaries}/{transfer}"] = with_chunks(png, points)
    return made


def test_chromium_shows_the_colours_that_are_judged(shown: Shown, subtests: pytest.Subtests) -> None:
    for name, data in browser_set().items():
        with subtests.test(name):
            assert difference(ours(data), shown(data)) < 1


def test_chromium_shows_odd_files_as_they_are_judged(shown: Shown, subtests: pytest.Subtests) -> None:
    """Refused files are shown in part, or as nothing at all; of two more no browser knows the kind."""
    for name, case in odd_photos().items():
        with subtests.test(name):
            drawn = shown(case.data)
            try:
                judged = ours(case.data)
            except ImageRefusedError as refused:
                whole = drawn is not None and (drawn != 255).any()
                assert not whole or refused.reason == "corrupt" or name == "arithmetic.jpg"
            else:
                assert difference(judged, drawn) < 1


def test_chromium_shows_the_cases(shown: Shown, subtests: pytest.Subtests) -> None:
    for name, case in cases().items():
        # blocks of EXIF by the dozen; no browser here shows HEIC; one waits for what is missing
        if case.refused or name.startswith(("exif_0", "exif_1", "exif_2", "end_missing")) or name.endswith(".heic"):
            continue
        with subtests.test(name):
            assert difference(ours(case.data), shown(case.data)) < 1


def avifenc(folder: Path, *options: str, sources: tuple[Image.Image, ...]) -> bytes:
    """An AVIF by Debian's encoder."""
    names = []
    for number, image in enumerate(sources):
        names.append(str(folder / f"{number}.png"))
        image.save(names[-1])
    target = folder / "made.avif"
    subprocess.run(["avifenc", "-s", "9", *options, *names, str(target)], check=True, capture_output=True, timeout=120)
    return target.read_bytes()


def test_chromium_shows_every_kind_of_avif_as_it_is_judged(
    shown: Shown, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    image = colourful()
    exif = tmp_path / "exif"
    exif.write_bytes(turned(6)[6:])
    kinds: dict[str, list[str]] = {
        **{f"rotated {turn}": ["--irot", str(turn)] for turn in range(4)},
        **{f"mirrored {axis}": ["--imir", str(axis)] for axis in range(2)},
        **{f"both {t}{a}": ["--irot", str(t), "--imir", str(a)] for t in (1, 2, 3) for a in (0, 1)},
        **{f"colours {points}": ["--cicp", points] for points in ("12/13/6", "9/14/9", "9/1/9", "1/8/6", "6/6/6")},
        "10 bit": ["-d", "10"],
        "12 bit": ["-d", "12"],
        "4:2:2": ["-y", "422"],
        "grey": ["-y", "400"],
        "narrow range": ["-r", "limited"],
        "grid": ["-g", "2x2"],
        "lossless": ["--lossless"],
        "odd pixels": ["--pasp", "2,1"],
        "EXIF does not turn": ["--exif", str(exif)],
    }
    for name, options in kinds.items():
        with subtests.test(name):
            data = avifenc(tmp_path, *options, sources=(image.resize((640, 480)) if name == "grid" else image,))
            assert difference(ours(data), shown(data)) < 1


def test_lossless_avif_has_the_very_pixels(tmp_path: Path) -> None:
    for image in (formula(), colourful()):
        data = avifenc(tmp_path, "--lossless", sources=(image,))
        assert np.array_equal(ours(data), np.asarray(image))
    # where Chromium differs, the pixels that went in say who is right: alpha and sequences
    faded = colourful().copy()
    faded.putalpha(Image.linear_gradient("L").resize(faded.size))
    assert difference(ours(avifenc(tmp_path, "--lossless", sources=(faded,))), ours(saved("PNG", faded))) == 0
    several = avifenc(tmp_path, "--min", "0", "--max", "0", sources=(colourful(), colourful().rotate(180)))
    assert difference(ours(several), np.asarray(colourful()).astype(np.int16)) < 1
