"""The one predictor under every route: a bounded queue in front of single-thread engine slots.

Everything that costs processor time (decoding included) runs in a slot's thread, so the event loop stays free.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

from serving.detector import gradcam
from serving.detector.decision import Verdict
from serving.detector.engine import Floats
from serving.detector.image import DecodedImage, ImageInfo, ImageLimits, decode
from serving.detector.labels import Label
from serving.detector.preprocess import Pixels, as_batch, to_input
from serving.http.problems import ProblemError
from serving.http.slots import Slots
from serving.platform.errors import ImageRefusedError
from serving.served import Served

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model said of one image, and what is needed to watch it."""

    served: Served
    verdict: Verdict
    logit: float
    info: ImageInfo
    pixels: Pixels
    seconds: float
    """Decoding and engine time; a batch's engine time is shared equally among its images."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A judgement with its Grad-CAM."""

    judgement: Judgement
    explained_class: Label
    grid: Floats
    overlay_png: bytes


Outcome = Judgement | ImageRefusedError


def judge(served: Served, images: Sequence[bytes], limits: ImageLimits) -> list[Outcome]:
    """Decode each image and score those that are accepted in one engine call; order is kept."""
    outcomes: list[Outcome | None] = [None] * len(images)
    ready: list[tuple[int, DecodedImage, Pixels, float]] = []
    for index, data in enumerate(images):
        started = time.perf_counter()
        try:
            decoded, pixels = _prepare(served, data, limits)
            ready.append((index, decoded, pixels, time.perf_counter() - started))
        except ImageRefusedError as error:
            outcomes[index] = error
    if ready:
        started = time.perf_counter()
        logits = served.detector.logits(as_batch([pixels for _, _, pixels, _ in ready]))
        share = (time.perf_counter() - started) / len(ready)
        rule = served.detector.rule
        for (index, decoded, pixels, seconds), logit in zip(ready, logits.tolist(), strict=True):
            outcomes[index] = Judgement(served, rule.decide(logit), logit, decoded.info, pixels, seconds + share)
    return [outcome for outcome in outcomes if outcome is not None]


def explain(served: Served, data: bytes, limits: ImageLimits) -> Explained:
    """Score one image and say where the score of its predicted class came from.

    Raises:
        ImageRefusedError: the bytes are no acceptable image.
    """
    started = time.perf_counter()
    decoded, pixels = _prepare(served, data, limits)
    logits, features = served.detector.logits_and_features(pixels[None])
    logit = float(logits[0])
    verdict = served.detector.rule.decide(logit)
    grid = served.detector.head().explain(features[0], verdict.prediction)
    png = gradcam.encode_png(gradcam.overlay(decoded.rgb, grid))
    judgement = Judgement(served, verdict, logit, decoded.info, pixels, time.perf_counter() - started)
    return Explained(judgement, verdict.prediction, grid, png)


def _prepare(served: Served, data: bytes, limits: ImageLimits) -> tuple[DecodedImage, Pixels]:
    side = served.detector.input_px
    decoded = decode(data, limits, target_px=side)
    return decoded, to_input(decoded.rgb, side)


class Predictor:
    """Runs work in `slots` threads; at most `queue_size` jobs wait, and none longer than `timeout_s`."""

    def __init__(
        self,
        slots: int,
        queue_size: int,
        timeout_s: float,
        on_depth: Callable[[int], None],
        limits: ImageLimits | None = None,
    ) -> None:
        self.slots = slots
        self.queue_size = queue_size
        self._timeout_s = timeout_s
        self._limits = limits or ImageLimits()
        self._on_depth = on_depth
        self._slots = Slots(slots)
        self._told_depth = 0

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot."""
        return max(0, self._slots.unfinished - self.slots)

    def refuse_if_full(self) -> None:
        """Refuse before a body is read where its job could not be queued anyway.

        Raises:
            ProblemError: `overloaded`.
        """
        self._refuse_unless_free(1)

    async def predict(self, served: Served, data: bytes) -> Judgement:
        """Judge one image.

        Raises:
            ImageRefusedError: the bytes are no acceptable image.
            ProblemError: `overloaded` or `deadline_exceeded`.
        """
        (outcome,) = await self.predict_many(served, [data])
        if isinstance(outcome, ImageRefusedError):
            raise outcome
        return outcome

    async def predict_many(self, served: Served, images: Sequence[bytes]) -> list[Outcome]:
        """Judge several images: one chunk for each slot, one engine call for each chunk; order is kept.

        Raises:
            ProblemError: `overloaded` or `deadline_exceeded`.
        """
        chunks = _split(images, min(self.slots, len(images)))
        results = await self._run([partial(judge, served, chunk, self._limits) for chunk in chunks])
        return [outcome for result in results for outcome in result]

    async def explain(self, served: Served, data: bytes) -> Explained:
        """Judge and explain one image; raises as `predict`."""
        (explained,) = await self._run([partial(explain, served, data, self._limits)])
        return explained

    async def _run(self, work: Sequence[Callable[[], T]]) -> list[T]:
        self._refuse_unless_free(len(work))
        jobs = [self._slots.give(piece) for piece in work]
        self._tell_depth()
        try:
            async with asyncio.timeout(self._timeout_s):
                return [await job.result for job in jobs]
        except TimeoutError as error:
            raise ProblemError("deadline_exceeded", f"no answer within {self._timeout_s:g} s; try again") from error
        finally:
            self._slots.drop(jobs)
            self._tell_depth()

    def _refuse_unless_free(self, jobs: int) -> None:
        if self._slots.unfinished + jobs > self.slots + self.queue_size:
            raise self._overloaded()

    def _tell_depth(self) -> None:
        if (depth := self.waiting) != self._told_depth:
            self._told_depth = depth
            self._on_depth(depth)

    def _overloaded(self) -> ProblemError:
        return ProblemError(
            "overloaded", f"all {self.slots} slots are busy and the queue of {self.queue_size} is full; try again"
        )

    def close(self) -> None:
        """Let running work end and drop what waits."""
        self._slots.close()


def _split(items: Sequence[bytes], parts: int) -> list[Sequence[bytes]]:
    """Contiguous chunks whose sizes differ by at most one."""
    bounds = [round(i * len(items) / parts) for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]
