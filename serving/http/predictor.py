"""The one predictor under every route: a bounded queue in front of single-thread engine slots.

Everything that costs processor time (decoding included) runs in a slot's thread, so the event loop stays free.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Final, TypeVar

from serving.detector.conclusion import Policy
from serving.detector.detector import BY_THE_BUNDLE, Detector, Explanation, Judgement, Outcome, Prepared
from serving.detector.heatmap import Encoding
from serving.detector.image import ImageLimits
from serving.http.problems import ProblemError
from serving.http.slots import DisplacedError, JobTimeoutError, Slots
from serving.platform.errors import ImageRefusedError

T = TypeVar("T")

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
        policy: Policy = BY_THE_BUNDLE,
        on_failed: Callable[[int], None] = lambda _images: None,
    ) -> None:
        """Start the slots.

        Args:
            slots: threads that work.
            queue_size: jobs that may wait for one.
            timeout_s: from asking to the answer.
            on_depth: told how many jobs wait, whenever that changed.
            cpu_limit_s: processor time of one image.
            limits: what an image may cost.
            policy: by which a deployment decides.
            on_failed: told how many accepted images got no verdict by a fault of the server: an internal error, or no
                answer in time. Refused images and requests that found no place are none.
        """
        self.slots = slots
        self.queue_size = queue_size
        self._timeout_s = timeout_s
        self._cpu_limit_s = cpu_limit_s
        self._limits = limits or ImageLimits()
        self.policy = policy
        self._on_depth, self._on_failed = on_depth, on_failed
        self._slots = Slots(slots)
        self._told_depth = 0

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot."""
        return max(0, self._slots.unfinished - self.slots)

    def refuse_if_full(self, client: str = "") -> None:
        """Refuse before a body is read where its job could not be queued anyway.

        Raises:
            ProblemError: `overloaded`.
        """
        if not self._has_room(1) and not self._slots.may_displace(client):
            raise self._overloaded()

    async def predict(self, detector: Detector, data: bytes, client: str = "") -> Judgement:
        """Judge one image.

        Raises:
            ImageRefusedError: the bytes are no acceptable image, or cost too much.
            ProblemError: `overloaded` or `deadline_exceeded`.
        """
        async with self._counted(1), self._admitted(1, client):
            return await self._do(partial(detector.judge, data, self._limits, self.policy), client)

    async def predict_many(self, detector: Detector, images: Sequence[bytes], client: str = "") -> list[Outcome]:
        """Judge several images: one chunk for each slot, one engine call for each chunk; order is kept.

        Images are decoded one by one: between two of them a slot does what others wait for.

        Raises:
            ProblemError: `overloaded` or `deadline_exceeded`.
        """
        chunks = _split(images, min(self.slots, len(images)))
        async with self._counted(len(images)), self._admitted(len(chunks), client), asyncio.TaskGroup() as group:
            judged = [group.create_task(self._judge_chunk(detector, chunk, client)) for chunk in chunks]
        return [outcome for chunk in judged for outcome in chunk.result()]

    async def explain(
        self, detector: Detector, data: bytes, client: str = "", encoding: Encoding | None = "png"
    ) -> Explanation:
        """Judge and explain one image, and draw it if an encoding is given; raises as `predict`."""
        work = partial(detector.explain, data, self._limits, policy=self.policy, encoding=encoding)
        async with self._counted(1), self._admitted(1, client):
            return await self._do(work, client, EXPLAIN_CPU_S)

    async def aside(self, work: Callable[[], T], client: str = "") -> T:
        """Do other work of a request in a slot; raises as `predict` and whatever the work raises."""
        async with self._admitted(1, client):
            return await self._do(work, client)

    async def _judge_chunk(self, detector: Detector, chunk: Sequence[bytes], client: str) -> list[Outcome]:
        if len(chunk) == 1:
            return await self._do(partial(detector.judge_all, chunk, self._limits, self.policy), client)
        prepared: list[Prepared | ImageRefusedError] = []
        for data in chunk:
            try:
                prepared.append(await self._do(partial(detector.prepare, data, self._limits, self.policy), client))
            except ImageRefusedError as error:
                prepared.append(error)
        ready = [one for one in prepared if isinstance(one, Prepared)]
        judged = iter(await self._do(partial(detector.score, ready, self.policy), client) if ready else ())
        return [next(judged) if isinstance(one, Prepared) else one for one in prepared]

    async def _do(self, work: Callable[[], T], client: str, more_cpu_s: float = 0.0) -> T:
        """One job from its place in the queue to its result."""
        job = self._slots.give(work, client, self._cpu_limit_s + more_cpu_s)
        self._tell_depth()
        try:
            return await job.result
        except JobTimeoutError as error:
            raise ImageRefusedError("decode_timeout", f"{error}; send fewer pixels, or a baseline JPEG") from error
        except DisplacedError as error:
            raise self._overloaded() from error
        finally:
            self._slots.drop([job])
            self._tell_depth()

    @asynccontextmanager
    async def _counted(self, images: int) -> AsyncIterator[None]:
        """Within: what ends without a verdict by a fault of the server is told to `on_failed`."""
        try:
            yield
        except ImageRefusedError:
            raise
        except Exception as error:
            if not isinstance(error, ProblemError) or error.reason == "deadline_exceeded":
                self._on_failed(images)
            raise

    @asynccontextmanager
    async def _admitted(self, jobs: int, client: str) -> AsyncIterator[None]:
        """Room for so many jobs at a time, and `timeout_s` to do them."""
        while not self._has_room(jobs):
            if not self._slots.displace(client):
                raise self._overloaded()
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as error:
            raise ProblemError("deadline_exceeded", f"no answer within {self._timeout_s:g} s; try again") from error
        except BaseExceptionGroup as group:
            # of a batch's chunks the first that failed
            raise group.exceptions[0] from None

    def _has_room(self, jobs: int) -> bool:
        return self._slots.unfinished + jobs <= self.slots + self.queue_size

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
