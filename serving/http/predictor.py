"""The one predictor under every route: a bounded queue in front of single-thread engine slots.

Everything that costs processor time (decoding included) runs in a slot's thread, so the event loop stays free.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, TypeVar

from serving.detector.detector import Detector, Explanation, Judgement, Outcome
from serving.detector.image import ImageLimits
from serving.http.problems import ProblemError
from serving.http.slots import JobTimeoutError, Slots
from serving.platform.errors import ImageRefusedError

T = TypeVar("T")

FURTHER_IMAGE_CPU_S: Final = 1.0
"""What a further image of a batch adds to the processor time allowed."""
EXPLAIN_CPU_S: Final = 20.0
"""What an explanation adds: the first one loads torch."""
CLOSE_S: Final = 2.0
"""How long work may still run once the server ends: the requests it belongs to were given up before."""


class Predictor:
    """Runs work in `slots` threads; at most `queue_size` jobs wait, and none longer than `timeout_s`.

    An image may take `cpu_limit_s` of processor time; then it is refused, and its slot is free again.
    """

    def __init__(
        self,
        slots: int,
        queue_size: int,
        timeout_s: float,
        on_depth: Callable[[int], None],
        cpu_limit_s: float = 5.0,
        limits: ImageLimits | None = None,
    ) -> None:
        self.slots = slots
        self.queue_size = queue_size
        self._timeout_s = timeout_s
        self._cpu_limit_s = cpu_limit_s
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

    async def predict(self, detector: Detector, data: bytes) -> Judgement:
        """Judge one image.

        Raises:
            ImageRefusedError: the bytes are no acceptable image.
            ProblemError: `overloaded` or `deadline_exceeded`.
        """
        (outcome,) = await self.predict_many(detector, [data])
        if isinstance(outcome, ImageRefusedError):
            raise outcome
        return outcome

    async def predict_many(self, detector: Detector, images: Sequence[bytes]) -> list[Outcome]:
        """Judge several images: one chunk for each slot, one engine call for each chunk; order is kept.

        Raises:
            ProblemError: `overloaded` or `deadline_exceeded`.
        """
        chunks = _split(images, min(self.slots, len(images)))
        limit_s = self._cpu_limit_s + FURTHER_IMAGE_CPU_S * (max(map(len, chunks)) - 1)
        results = await self._run([partial(detector.judge_all, chunk, self._limits) for chunk in chunks], limit_s)
        return [outcome for result in results for outcome in result]

    async def explain(self, detector: Detector, data: bytes) -> Explanation:
        """Judge and explain one image; raises as `predict`."""
        (explained,) = await self._run(
            [partial(detector.explain, data, self._limits)], self._cpu_limit_s + EXPLAIN_CPU_S
        )
        return explained

    async def aside(self, work: Callable[[], T]) -> T:
        """Do other work of a request in a slot; raises as `_run` and whatever the work raises."""
        (result,) = await self._run([work], self._cpu_limit_s)
        return result

    async def _run(self, work: Sequence[Callable[[], T]], cpu_limit_s: float) -> list[T]:
        self._refuse_unless_free(len(work))
        jobs = [self._slots.give(piece, cpu_limit_s) for piece in work]
        self._tell_depth()
        try:
            async with asyncio.timeout(self._timeout_s):
                return [await job.result for job in jobs]
        except JobTimeoutError as error:
            detail = f"{error}; send fewer pixels, or a baseline JPEG"
            raise ProblemError("decode_timeout", detail) from error
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
        """Drop what waits, and let running work end, for `CLOSE_S` at most."""
        self._slots.close(CLOSE_S)


def _split(items: Sequence[bytes], parts: int) -> list[Sequence[bytes]]:
    """Contiguous chunks whose sizes differ by at most one."""
    bounds = [round(i * len(items) / parts) for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]
