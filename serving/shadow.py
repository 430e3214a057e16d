"""A challenger judges a sample of the traffic, off the request path: it never slows, delays or breaks an answer."""

import logging
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from serving.detector.detector import Detector, Judgement
from serving.detector.image import ImageLimits
from serving.detector.labels import Label
from serving.platform.errors import ImageRefusedError
from serving.served import ModelHolder

MOST_WAITING: Final = 8
"""Images that may wait for the challenger; under load the sample gets thinner, never the queue longer."""

NICENESS: Final = 15
"""The challenger's thread takes what processor time the champion leaves."""

_log = logging.getLogger(__name__)


class Shadow:
    """Offers judged images to the challenger and reports whether it agreed."""

    def __init__(
        self,
        challenger: ModelHolder,
        sample: float,
        is_idle: Callable[[], bool],
        on_judged: Callable[[bool], None],
        limits: ImageLimits | None = None,
    ) -> None:
        self._challenger = challenger
        self._sample = sample
        self._is_idle = is_idle
        self._on_judged = on_judged
        self._limits = limits or ImageLimits()
        self._places = threading.Semaphore(MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_step_back)

    def offer(self, champion: Judgement, data: bytes) -> None:
        """Perhaps let the challenger judge this image too; returns at once.

        Dropped when it is not in the sample, when requests wait for a slot, or when enough images wait already.
        """
        if not self._challenger.loaded or random.random() >= self._sample:
            return
        if not self._is_idle() or not self._places.acquire(blocking=False):
            return
        try:
            self._thread.submit(self._judge, champion, data)
        except RuntimeError:
            # the server is closing
            self._places.release()

    def _judge(self, champion: Judgement, data: bytes) -> None:
        try:
            said = _prediction(self._challenger.current.detector, champion, data, self._limits)
            self._on_judged(said == champion.verdict.prediction)
        except ImageRefusedError:
            pass  # of another input size, the challenger decodes the photo at another scale, which may cost more
        except Exception:  # noqa: BLE001 - nothing the challenger does may reach the champion's users
            _log.exception("shadow: the challenger failed")
        finally:
            self._places.release()

    def close(self) -> None:
        """Drop what waits and stop."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _prediction(challenger: Detector, champion: Judgement, data: bytes, limits: ImageLimits) -> Label:
    if champion.preparation == challenger.preparation:
        return challenger.rule.decide(float(challenger.logits(champion.pixels[None])[0])).prediction
    return challenger.judge(data, limits).verdict.prediction


def _step_back() -> None:
    # on Linux a niceness belongs to the thread
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
