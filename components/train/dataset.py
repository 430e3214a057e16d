"""Packed images to batches: decoded once into memory-mapped uint8, augmented by loader threads ahead of the network."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.artifacts.dataset import TRAIN, VAL, Dataset
from components.train.augment import augment
from components.train.config import AugmentConfig, TrainConfig
from serving.detector.framing import content_box
from serving.detector.image import ImageLimits, decode
from serving.detector.labels import LABELS
from serving.detector.preprocess import REDUCING_GAP, Pixels, Preparation
from serving.detector.statistics import InputQuality
from serving.platform.cores import usable_cores
from serving.platform.errors import ImageRefusedError, StageError

_DECODE_ROWS: Final = 512
_LIMITS: Final = ImageLimits(min_side_px=1)
"""verify_data has judged the sizes; here only damage is refused."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A split in memory-mapped arrays, in stored order."""

    pixels: Pixels
    """uint8 (n, views, height, width, 3), borders off. Of the whole photo one view: of native size when all images
    share a small one, else of `cache_px`; of native crops each as it is served."""
    labels: npt.NDArray[np.float32]
    """(n,), 1 is ai_generated."""
    sources: npt.NDArray[np.str_]
    """(n,), empty where unknown."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation split as served (`inputs`), as cached (`native`), and what each file looked like.

    Both uint8 (n, views, height, width, 3).
    """

    inputs: Pixels
    native: Pixels
    labels: npt.NDArray[np.float32]
    qualities: list[InputQuality]
    rows: npt.NDArray[np.int64]
    """Row in the packed split of each image."""


def chosen_rows(dataset: Dataset, split: str, limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rows to use and their labels; with a limit the first rows of each class, in stored order.

    Raises:
        StageError: the split is missing or lacks a class.
    """
    if not dataset.has(split):
        raise StageError(f"{dataset.folder}: the dataset has no {split} images; run verify_data on data that has some")
    labels = dataset.table(split, ["label"]).column("label").to_numpy().astype(np.float32)
    for label_id, name in enumerate(LABELS):
        if not (labels == label_id).any():
            raise StageError(f"{dataset.folder}: split {split} has no image of class {name!r}; training needs both")
    if not limit:
        return np.arange(len(labels)), labels
    per_class = [np.flatnonzero(labels == label_id)[: max(1, limit // 2)] for label_id in range(len(LABELS))]
    rows = np.sort(np.concatenate(per_class))
    return rows, labels[rows]


def preparation(config: TrainConfig) -> Preparation:
    """How the trained model will take a picture."""
    return Preparation(config.input_px, crops=config.crops if config.views == "native" else 0)


def decode_train(dataset: Dataset, scratch: Path, config: TrainConfig) -> Decoded:
    """Decode the training split once into `scratch`; memory stays flat in the split's size."""
    rows, labels = chosen_rows(dataset, TRAIN, config.limit)
    cache = _Cache.of(dataset, TRAIN, config)
    pixels = _new_array(scratch / "train.npy", (len(rows), *cache.shape))

    def store(at: int, data: bytes) -> None:
        pixels[at] = cache.of_photo(data)

    _each_image(dataset, TRAIN, rows, store)
    pixels.flush()
    return Decoded(pixels, labels, _sources(dataset, rows))


def open_train(dataset: Dataset, scratch: Path, config: TrainConfig) -> Decoded:
    """The training split that another process of this run has decoded."""
    rows, labels = chosen_rows(dataset, TRAIN, config.limit)
    return Decoded(np.load(scratch / "train.npy", mmap_mode="r"), labels, _sources(dataset, rows))


def decode_validation(dataset: Dataset, scratch: Path, config: TrainConfig) -> Validation:
    """Decode the validation split: pixels exactly as the server makes them, beside the cached native ones."""
    rows, labels = chosen_rows(dataset, VAL, config.limit)
    cache, ways = _Cache.of(dataset, VAL, config), preparation(config)
    inputs = _new_array(scratch / "val_inputs.npy", (len(rows), ways.views, config.input_px, config.input_px, 3))
    native = _new_array(scratch / "val_native.npy", (len(rows), *cache.shape))
    qualities: list[InputQuality | None] = [None] * len(rows)

    def store(at: int, data: bytes) -> None:
        image = decode(data, _LIMITS, target_px=ways.decode_px)
        inputs[at] = ways.inputs(image.rgb)
        native[at] = cache.of_photo(data)
        qualities[at] = InputQuality.of(image.info)

    _each_image(dataset, VAL, rows, store)
    return Validation(inputs, native, labels, [q for q in qualities if q is not None], rows)


def open_validation(dataset: Dataset, scratch: Path, config: TrainConfig) -> Validation:
    """The validation split another process has decoded; only the main process needs the qualities."""
    rows, labels = chosen_rows(dataset, VAL, config.limit)
    inputs = np.load(scratch / "val_inputs.npy", mmap_mode="r")
    native = np.load(scratch / "val_native.npy", mmap_mode="r")
    return Validation(inputs, native, labels, [], rows)


def encoded(dataset: Dataset, split: str, rows: list[int]) -> dict[int, bytes]:
    """File bytes of a few rows of a split."""
    wanted = set(rows)
    return {row: data for row, data in enumerate(dataset.images(split)) if row in wanted}


def epoch_order(n: int, epoch: int, seed: int, rank: int = 0, world_size: int = 1) -> npt.NDArray[np.int64]:
    """This rank's rows of an epoch: disjoint shards of one permutation, all of equal length."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return order[: n // world_size * world_size][rank::world_size]


@dataclass(frozen=True, slots=True)
class Batch:
    """Augmented images and their labels."""

    pixels: Pixels
    labels: npt.NDArray[np.float32]


def batches(
    data: Decoded,
    order: npt.NDArray[np.int64],
    size: int,
    key: tuple[int, ...],
    augmentation: AugmentConfig,
    threads: int,
    part: float = 1.0,
) -> Iterator[Batch]:
    """Augmented batches of `size` in the given order, made by `threads` loader threads ahead of their use.

    Each batch draws from its own generator seeded by `key` and its number, so what comes out depends neither on the
    number of threads nor on their timing. A last batch that is not full is left out. Of each augmented image a random
    `part` of its height and width is kept, without a resize.
    """
    starts = range(0, len(order) - size + 1, size)

    def make(number: int) -> Batch:
        rows = order[starts[number] : starts[number] + size]
        rng = np.random.default_rng([*key, number])
        views = data.pixels.shape[1]
        seen = rng.integers(views, size=size) if views > 1 else 0
        whole = augment(data.pixels[rows, seen], rng, augmentation)
        return Batch(whole if part == 1 else _random_part(whole, part, rng), data.labels[rows])

    with ThreadPoolExecutor(threads, thread_name_prefix="loader") as pool:
        yield from _ahead(pool, make, len(starts), depth=2 * threads)


def _random_part(images: Pixels, part: float, rng: np.random.Generator) -> Pixels:
    n, height, width, channels = images.shape
    tall, wide = max(1, round(part * height)), max(1, round(part * width))
    windows = np.lib.stride_tricks.sliding_window_view(images, (1, tall, wide, channels))
    tops, lefts = rng.integers(height - tall + 1, size=n), rng.integers(width - wide + 1, size=n)
    return np.ascontiguousarray(windows[np.arange(n), tops, lefts, 0, 0])


def _ahead(pool: ThreadPoolExecutor, make: Callable[[int], Batch], n: int, depth: int) -> Iterator[Batch]:
    numbers = iter(range(n))
    waiting: list[Future[Batch]] = [pool.submit(make, i) for i in islice(numbers, depth)]
    try:
        while waiting:
            batch = waiting.pop(0).result()
            waiting.extend(pool.submit(make, i) for i in islice(numbers, 1))
            yield batch
    finally:
        for future in waiting:
            future.cancel()


@dataclass(frozen=True, slots=True)
class _Cache:
    """What is kept of a photo while training."""

    preparation: Preparation
    height: int
    width: int

    @classmethod
    def of(cls, dataset: Dataset, split: str, config: TrainConfig) -> "_Cache":
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
        return self.preparation.views, self.height, self.width, 3

    def of_photo(self, data: bytes) -> Pixels:
        """Its views, uint8 of `shape`."""
        if self.preparation.crops:
            return self.preparation.inputs(decode(data, _LIMITS).rgb)
        rgb = decode(data, _LIMITS, target_px=max(self.height, self.width)).rgb
        box = content_box(rgb)
        if box is not None:
            rgb = rgb.crop(box)
        size = self.width, self.height
        if rgb.size != size:
            rgb = rgb.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
        return np.asarray(rgb, dtype=np.uint8)[None]


def _sources(dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    found: list[str] = dataset.table(TRAIN, ["source"]).column("source").fill_null("").to_pylist()
    return np.array(found, dtype=np.str_)[rows]


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _each_image(dataset: Dataset, split: str, rows: npt.NDArray[np.int64], store: Callable[[int, bytes], None]) -> None:
    """Call `store(position, bytes)` for every chosen row, many at a time (decoders release the interpreter lock)."""
    position = {int(row): at for at, row in enumerate(rows)}

    def one(item: tuple[int, bytes]) -> None:
        row, data = item
        try:
            store(position[row], data)
        except ImageRefusedError as error:
            raise StageError(f"{split}/{row}: {error}; run verify_data again on the source") from error

    chosen = ((row, data) for row, data in enumerate(dataset.images(split, _DECODE_ROWS)) if row in position)
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
        while block := list(islice(chosen, _DECODE_ROWS)):
            list(pool.map(one, block))
