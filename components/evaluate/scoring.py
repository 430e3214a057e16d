"""Every image of a split through the detectors, as the server would judge it; memory is flat in the split's size."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import Dataset
from components.evaluate.config import EvaluateConfig
from components.evaluate.decisions import SIGNALS
from components.evaluate.intervals import Mask
from components.evaluate.robustness import Corruption
from components.evaluate.slices import Frame
from components.platform.ahead import in_order
from serving.detector.detector import Detector, Prepared
from serving.detector.engine import Floats
from serving.detector.image import decode
from serving.detector.preprocess import Pixels, Preparation
from serving.platform.cores import usable_cores
from serving.platform.errors import ImageRefusedError, StageError

Rows = npt.NDArray[np.int64]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class SplitLogits:
    """Raw logits of several models on one split, and what the first of them finds outside its domain."""

    clean: Floats
    """(models, n) in stored order."""
    corrupted: Floats
    """(models, cells, rows of the grid)."""
    outside_by: Mask
    """Which of `decisions.SIGNALS` put each image outside of what the first model was trained on, (signals, n)."""


@dataclass(frozen=True)
class Plan:
    """What to score: the models, and the corruptions with the rows they are tried on."""

    detectors: Sequence[Detector]
    cells: Sequence[Corruption] = ()
    grid_rows: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def forward_passes(self, n: int) -> int:
        """Images to score, each model and corruption counted."""
        return len(self.detectors) * (n + len(self.cells) * len(self.grid_rows))


def threads_of(config: EvaluateConfig) -> int:
    """Threads to work on: those of the configuration, or one for each core this process may use."""
    return config.threads or usable_cores()


def score_split(
    dataset: Dataset, frame: Frame, plan: Plan, config: EvaluateConfig, progress: Progress = lambda _: None
) -> SplitLogits:
    """Decode each image once for each input size and score it with every detector.

    Raises:
        StageError: an image cannot be decoded, or a model answers with something that is not a number.
    """
    n, models = len(frame), len(plan.detectors)
    clean = np.empty((models, n), dtype=np.float32)
    corrupted = np.empty((models, len(plan.cells), len(plan.grid_rows)), dtype=np.float32)
    outside_by = np.zeros((len(SIGNALS), n), dtype=bool)
    worker = _Worker(frame, plan, config)
    with ThreadPoolExecutor(threads_of(config)) as pool:
        chunks = _chunks(dataset, frame.split, config.batch_size)
        # reading never runs far ahead
        scored = ((start, pool.submit(worker, start, chunk)) for start, chunk in chunks)
        for start, result in in_order(scored, 2 * threads_of(config)):
            stop = start + result.clean.shape[1]
            clean[:, start:stop] = result.clean
            outside_by[:, start:stop] = result.outside_by
            first, last = np.searchsorted(plan.grid_rows, (start, stop))
            corrupted[:, :, first:last] = result.corrupted
            progress(result.clean.size + result.corrupted.size)
    _refuse_not_finite(clean, frame, plan)
    return SplitLogits(clean, corrupted, outside_by)


def _chunks(dataset: Dataset, split: str, size: int) -> Iterator[tuple[int, list[bytes]]]:
    chunk: list[bytes] = []
    start = 0
    for data in dataset.images(split):
        chunk.append(data)
        if len(chunk) == size:
            yield start, chunk
            start, chunk = start + size, []
    if chunk:
        yield start, chunk


class _Worker:
    """Scores one chunk; called from many threads at once."""

    def __init__(self, frame: Frame, plan: Plan, config: EvaluateConfig) -> None:
        self._frame = frame
        self._plan = plan
        self._batch = config.batch_size
        self._seed = config.seed

    def __call__(self, start: int, chunk: list[bytes]) -> SplitLogits:
        first, last = np.searchsorted(self._plan.grid_rows, (start, start + len(chunk)))
        rows = self._plan.grid_rows[first:last]
        cells = len(self._plan.cells)
        prepared = [self._clean(start, chunk, detector) for detector in self._seeing().values()]
        clean = self._score([np.stack([one.pixels for one in way]) for way in prepared])
        outside_by = _outside_by(prepared[0])
        if not cells or not len(rows):
            none = np.empty((len(self._plan.detectors), cells, len(rows)), dtype=np.float32)
            return SplitLogits(clean, none, outside_by)
        inputs = self._corrupted(start, chunk, rows)
        # pictures come image by image; the result is wanted corruption by corruption
        corrupted = self._score(inputs).reshape(-1, len(rows), cells).transpose(0, 2, 1)
        return SplitLogits(clean, corrupted, outside_by)

    def _seeing(self) -> dict[Preparation, Detector]:
        """A detector for each way of preparing pictures; that of the first model comes first and is itself."""
        found: dict[Preparation, Detector] = {}
        for detector in self._plan.detectors:
            found.setdefault(detector.preparation, detector)
        return found

    def _clean(self, start: int, chunk: list[bytes], detector: Detector) -> list[Prepared]:
        prepared = []
        for row, data in enumerate(chunk, start):
            try:
                prepared.append(detector.prepare(data))
            except ImageRefusedError as error:
                raise StageError(
                    f"{self._frame.name_of(row)}: {error}; run verify_data on this dataset again"
                ) from error
        return prepared

    def _corrupted(self, start: int, chunk: list[bytes], rows: Rows) -> list[Pixels]:
        """Model inputs of every corruption of every row of the grid, a batch for each way of `_seeing`."""
        ways = list(self._seeing())
        sides = [way.decode_px for way in ways]
        # as large as the most demanding model wants it; None is larger than any
        target_px = None if None in sides else max(side for side in sides if side is not None)
        pixels: list[list[Pixels]] = [[] for _ in ways]
        for row in rows.tolist():
            rgb = decode(chunk[row - start], target_px=target_px).rgb
            for corruption in self._plan.cells:
                # shrunk at once: a chunk of large photos in all its corruptions would fill the memory
                picture = corruption.apply(rgb, (self._seed, row))
                for way, batch in zip(ways, pixels, strict=True):
                    batch.append(way.inputs(picture))
        return [np.stack(batch) for batch in pixels]

    def _score(self, inputs: list[Pixels]) -> Floats:
        """Logits (models, images) of the same images prepared in each way of `_seeing`."""
        by_way = dict(zip(self._seeing(), inputs, strict=True))
        return np.stack([self._in_batches(d, by_way[d.preparation]) for d in self._plan.detectors])

    def _in_batches(self, detector: Detector, pixels: Pixels) -> Floats:
        # a bounded batch bounds the activations: the grid of one chunk can be hundreds of pictures
        parts = [detector.logits(pixels[i : i + self._batch]) for i in range(0, len(pixels), self._batch)]
        return np.concatenate(parts)


def _outside_by(prepared: list[Prepared]) -> Mask:
    """Which of `SIGNALS` put each image outside, (signals, images)."""
    by = [{signal.name for signal in one.domain.outside_by} for one in prepared]
    return np.array([[name in names for names in by] for name in SIGNALS], dtype=bool)


def _refuse_not_finite(clean: Floats, frame: Frame, plan: Plan) -> None:
    for logits, detector in zip(clean, plan.detectors, strict=True):
        bad = np.flatnonzero(~np.isfinite(logits))
        if len(bad):
            raise StageError(
                f"{detector.folder}: the model answers with NaN or infinity on {len(bad)} of {len(logits)} images, "
                f"first {frame.name_of(int(bad[0]))}; its training diverged"
            )
