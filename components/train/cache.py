"""What is kept of each photo while training, and whether the disk has room for all of it."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from components.artifacts.dataset import Dataset
from components.train.config import TrainConfig
from serving.detector.framing import content_box
from serving.detector.image import ImageLimits, decode
from serving.detector.preprocess import REDUCING_GAP, Pixels, Preparation
from serving.platform.errors import StageError

LIMITS: Final = ImageLimits(min_side_px=1)
"""verify_data has judged the sizes; here only damage is refused."""
_SMALLEST_PX: Final = 32


def preparation(config: TrainConfig) -> Preparation:
    """How the trained model will take a picture."""
    return Preparation(config.input_px, crops=config.crops if config.views == "native" else 0)


@dataclass(frozen=True, slots=True)
class Cache:
    """The form in which a split's photos are kept."""

    preparation: Preparation
    height: int
    width: int

    @classmethod
    def of(cls, dataset: Dataset, split: str, config: TrainConfig) -> "Cache":
        """The native size where all photos share a small one, else squares of `cache_px`; native crops as served."""
        ways = preparation(config)
        if ways.crops:
            return cls(ways, config.input_px, config.input_px)
        table = dataset.table(split, ["height", "width"])
        heights, widths = (set(table.column(name).unique().to_pylist()) for name in ("height", "width"))
        if len(heights) == len(widths) == 1 and max(*heights, *widths) <= config.cache_px:
            return cls(ways, int(heights.pop()), int(widths.pop()))
        return cls(ways, config.cache_px, config.cache_px)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one photo: views, height, width, 3."""
        return self.preparation.views, self.height, self.width, 3

    def of_photo(self, data: bytes) -> Pixels:
        """Its views, uint8 of `shape`."""
        if self.preparation.crops:
            return self.preparation.inputs(decode(data, LIMITS).rgb)
        rgb = decode(data, LIMITS, target_px=max(self.height, self.width)).rgb
        box = content_box(rgb)
        if box is not None:
            rgb = rgb.crop(box)
        size = self.width, self.height
        if rgb.size != size:
            rgb = rgb.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
        return np.asarray(rgb, dtype=np.uint8)[None]


@dataclass(frozen=True, slots=True)
class Load:
    """Images that one machine keeps decoded."""

    train: int
    train_form: Cache
    val: int
    """As served."""
    val_cached: int
    """Once more as the training's are."""
    val_form: Cache


def check_room(folder: Path, config: TrainConfig, load: Load) -> None:
    """Refuse a cache that has no room before the first byte of it is written.

    Arrays in a file that is mapped grow while they are filled: a full disk would end the process without a word.

    Args:
        folder: where it is to lie.
        config: its bound, and the form of the inputs.
        load: what it is to hold.

    Raises:
        StageError: with the sizes and what would fit.
    """
    ways = preparation(config)
    served = load.val * ways.views * config.input_px**2 * 3
    cached = ((load.train, load.train_form), (load.val_cached, load.val_form))
    needed = served + sum(n * math.prod(form.shape) for n, form in cached)
    free = shutil.disk_usage(folder).free
    room = min(free, config.cache_bytes or free)
    if needed <= room:
        return
    why = f"train.cache_bytes allows {room:,}" if room < free else f"{free:,} are free in {folder}"
    side = math.isqrt(max(0, room - served) // ((load.train + load.val_cached) * 3))
    ways_out = [f"set train.cache_px to {side} at most"] if not ways.crops and side >= _SMALLEST_PX else []
    ways_out += ["set train.scratch_dir to a larger disk" if room == free else "raise train.cache_bytes"]
    raise StageError(
        f"the decoded images of {load.train:,} for training and {load.val:,} for validation take {needed:,} bytes, and "
        f"{why}; {', or '.join([*ways_out, 'share them among more machines'])}"
    )
