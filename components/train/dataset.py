"""Packed images to batches: decoded once into memory-mapped uint8, augmented by loader threads ahead of the network."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import TRAIN, VAL, Dataset
from components.train.augment import augment
from components.train.cache import LIMITS, Cache, Load, check_room, preparation
from components.train.config import AugmentConfig, TrainConfig
from components.train.shards import Part, rows_of_part, validated_here
from serving.detector.image import decode
from serving.detector.labels import LABELS
from serving.detector.preprocess import Pixels
from serving.detector.statistics import InputQuality
from serving.platform.cores import usable_cores
from serving.platform.errors import ImageRefusedError, StageError

_DECODE_ROWS: Final = 512
_ALL: Final = Part()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A split, or one machine's part of it, in memory-mapped arrays, in stored order."""

    pixels: Pixels
    """uint8 (n, views, height, width, 3), borders off. Of the whole photo one view: of native size when all images
    share a small one, else of `cache_px`; of native crops each as it is served."""
    labels: npt.NDArray[np.float32]
    """(n,), 1 is ai_generated."""
    sources: npt.NDArray[np.str_]
    """(n,), empty where unknown, and where nobody asks for pairs."""
    real_per_generated: float
    """In all parts together."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation split as served (`inputs`), as cached (`native`), and what each file looked like.

    Both uint8 (n, views, height, width, 3). A machine that does not export the model keeps the inputs that its
    processes score, and nothing as cached.
    """

    inputs: Pixels
    native: Pixels
    labels: npt.NDArray[np.float32]
    """Of the whole split on every machine."""
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


def check_disk(dataset: Dataset, scratch: Path, config: TrainConfig, part: Part = _ALL) -> None:
    """Refuse before anything is decoded what the disk of this machine does not hold, or must not.

    Raises:
        StageError: with the sizes and what would fit; also a split is missing.
    """
    n = len(chosen_rows(dataset, VAL, config.limit)[0])
    load = Load(
        train=len(_part_of(dataset, config, part).rows),
        train_form=Cache.of(dataset, TRAIN, config),
        val=len(validated_here(n, part)),
        val_cached=n if part.is_first else 0,
        val_form=Cache.of(dataset, VAL, config),
    )
    check_room(scratch, config, load)


def decode_train(dataset: Dataset, scratch: Path, config: TrainConfig, part: Part = _ALL) -> Decoded:
    """Decode the training split, or this machine's part, once into `scratch`; memory stays flat in its size.

    Row groups of the packed files without an image of this part are not read.
    """
    chosen = _part_of(dataset, config, part)
    cache = Cache.of(dataset, TRAIN, config)
    pixels = _new_array(scratch / "train.npy", (len(chosen.rows), *cache.shape))

    def store(at: int, data: bytes) -> None:
        pixels[at] = cache.of_photo(data)

    _each_image(dataset, TRAIN, chosen.rows, store)
    pixels.flush()
    return Decoded(pixels, chosen.labels, chosen.sources, chosen.real_per_generated)


def open_train(dataset: Dataset, scratch: Path, config: TrainConfig, part: Part = _ALL) -> Decoded:
    """The training split, or the part of it, that another process of this machine has decoded."""
    chosen = _part_of(dataset, config, part)
    pixels = np.load(scratch / "train.npy", mmap_mode="r")
    return Decoded(pixels, chosen.labels, chosen.sources, chosen.real_per_generated)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Rows of the training split that one machine uses, ascending, and what is known of them."""

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    sources: npt.NDArray[np.str_]
    real_per_generated: float


def _part_of(dataset: Dataset, config: TrainConfig, part: Part) -> _Chosen:
    rows, labels = chosen_rows(dataset, TRAIN, config.limit)
    sources = _sources(dataset, rows) if config.pairs else np.full(len(rows), "")
    mine = rows_of_part(sources if config.pairs else None, labels, config.seed, part)
    generated = float(labels.sum())
    return _Chosen(rows[mine], labels[mine], sources[mine], (len(labels) - generated) / generated)


def decode_validation(dataset: Dataset, scratch: Path, config: TrainConfig, part: Part = _ALL) -> Validation:
    """Decode the validation split: pixels exactly as the server makes them, beside the cached native ones."""
    rows, labels = chosen_rows(dataset, VAL, config.limit)
    kept = rows[validated_here(len(rows), part)]
    cache, ways = Cache.of(dataset, VAL, config), preparation(config)
    inputs = _new_array(scratch / "val_inputs.npy", (len(kept), ways.views, config.input_px, config.input_px, 3))
    native = _new_array(scratch / "val_native.npy", (len(kept) if part.is_first else 0, *cache.shape))
    qualities: list[InputQuality | None] = [None] * len(kept)

    def store(at: int, data: bytes) -> None:
        image = decode(data, LIMITS, target_px=ways.decode_px)
        inputs[at] = ways.inputs(image.rgb)
        if part.is_first:
            native[at] = cache.of_photo(data)
        qualities[at] = InputQuality.of(image.info)

    _each_image(dataset, VAL, kept, store)
    return Validation(inputs, native, labels, [q for q in qualities if q is not None], rows)


def open_validation(dataset: Dataset, scratch: Path, config: TrainConfig) -> Validation:
    """The validation split another process has decoded; only the main process needs the qualities."""
    rows, labels = chosen_rows(dataset, VAL, config.limit)
    inputs = np.load(scratch / "val_inputs.npy", mmap_mode="r")
    native = np.load(scratch / "val_native.npy", mmap_mode="r")
    return Validation(inputs, native, labels, [], rows)


def encoded(dataset: Dataset, split: str, rows: list[int]) -> dict[int, bytes]:
    """File bytes of a few rows of a split."""
    return dict(dataset.images_of(split, np.unique(rows), _DECODE_ROWS))


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

    chosen = dataset.images_of(split, rows, _DECODE_ROWS)
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool:
        while block := list(islice(chosen, _DECODE_ROWS)):
            list(pool.map(one, block))
