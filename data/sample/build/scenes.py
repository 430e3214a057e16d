"""From photographs to scenes of 192 px: crops of rectangles, cut-outs on plain backdrops as shops show their goods."""

from typing import Final

import numpy as np
from packages import Photograph, Pixels
from PIL import Image, ImageFilter

SIDE: Final = 192


def scene(photo: Photograph, pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """One scene, (192, 192, 3); another at each call. Nothing is enlarged by more than a sixth."""
    shown = _set_out(pixels, rng) if photo.kind == "cutout" else _crop(photo, pixels, rng)
    return shown[:, ::-1].copy() if rng.random() < 0.5 else shown


def _crop(photo: Photograph, pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    short = min(height, width)
    smallest = max(SIDE / 1.15, short * (0.8 if photo.product else 0.5))
    side = int(min(short, rng.uniform(min(smallest, short), short + 1)))
    # what is shown stands near the middle
    top = int((height - side) * np.clip(rng.normal(0.5, 0.22), 0, 1))
    left = int((width - side) * np.clip(rng.normal(0.5, 0.22), 0, 1))
    part = Image.fromarray(pixels[top : top + side, left : left + side, :3])
    return np.asarray(part.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _backdrop(rng: np.random.Generator) -> Image.Image:
    """White, one light colour, or a wall that darkens towards a table, as soft as studio light is."""
    kind = rng.random()
    if kind < 0.3:
        return Image.new("RGB", (SIDE, SIDE), (int(rng.integers(246, 256)),) * 3)
    tint = rng.uniform(150, 245) + rng.normal(0, 14, 3)
    across, down = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE))
    light = 1 - rng.uniform(0, 0.22) * ((across - rng.uniform(-0.6, 0.6)) ** 2 + (down + rng.uniform(0, 0.6)) ** 2) / 2
    if kind > 0.65:
        edge = rng.uniform(0.1, 0.7)
        light = light * (1 - rng.uniform(0.05, 0.25) / (1 + np.exp(-(down - edge) * rng.uniform(5, 40))))
    return Image.fromarray(np.clip(tint * light[..., None], 0, 255).astype(np.uint8))


def _set_out(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    cut = Image.fromarray(pixels)
    cut = cut.crop(cut.getchannel("A").point(lambda v: 255 if v > 16 else 0).getbbox())
    cut = cut.convert("RGBa").rotate(rng.normal(0, 7), Image.Resampling.BICUBIC, expand=True)
    cut = cut.crop(cut.getbbox())
    room = min(rng.uniform(0.62, 0.96) * SIDE / max(cut.size), 1.15)
    cut = cut.resize([max(8, round(side * room)) for side in cut.size], Image.Resampling.LANCZOS).convert("RGBA")
    ground = _backdrop(rng)
    slack = [SIDE - side for side in cut.size]
    x, y = int(slack[0] * rng.uniform(0.35, 0.65)), int(slack[1] * rng.uniform(0.4, 0.75))
    shade = Image.new("L", (SIDE, SIDE), 0)
    foot = cut.getchannel("A").resize((cut.width, max(4, cut.height // 5)))
    shade.paste(foot.point(lambda v: v // 2), (x, min(SIDE - 4, y + cut.height - foot.height + foot.height // 3)))
    shade = shade.filter(ImageFilter.GaussianBlur(rng.uniform(3, 9)))
    strength = rng.uniform(0, 0.9)
    ground = Image.composite(
        Image.new("RGB", ground.size, (40, 40, 44)), ground, shade.point(lambda v: int(v * strength))
    )
    ground.paste(cut, (x, y), cut)
    return np.asarray(ground)
