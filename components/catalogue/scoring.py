"""One worker: a detector, a reader of photos, and the shards it is given."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.catalogue.config import CatalogueConfig
from components.catalogue.entries import Entry
from components.catalogue.photos import Photos, UnreadPhotoError
from components.catalogue.rows import Row, refused
from serving.detector.conclusion import Policy
from serving.detector.detector import Detector
from serving.platform.errors import ImageRefusedError
from serving.provenance.credentials import Verifier


@dataclass(frozen=True)
class Work:
    """What every worker of a job is told; small, because it is sent to each process."""

    bundle: Path
    model_version: str
    config: CatalogueConfig
    workers: int


class Scorer:
    """Scores photos in this process; one single-thread engine."""

    def __init__(self, work: Work) -> None:
        """Load the bundle, and what decisions are made by.

        Raises:
            BundleError: it cannot be served.
            TrustListError: a list of signers cannot be read.
        """
        self._work = work
        self._detector = Detector.load(work.bundle, threads=1)
        self._policy = policy_of(work.config)
        self._photos = Photos(work.config, work.workers)

    def score(self, entries: Sequence[Entry]) -> list[Row]:
        """A row for each photo, in order.

        A photo that keeps this process longer than `photo_timeout_s` ends it: a decoder in C hears nothing else.
        """
        rows = []
        for entry, data in self._photos.of(entries):
            _set_alarm(self._work.config.photo_timeout_s)
            rows.append(self._row(entry, data))
        _set_alarm(0)
        return rows

    def _row(self, entry: Entry, data: bytes | UnreadPhotoError) -> Row:
        if isinstance(data, UnreadPhotoError):
            return refused(entry.id, entry.uri, data.reason)
        started = time.perf_counter()
        try:
            judged = self._detector.judge(data, policy=self._policy)
        except ImageRefusedError as error:
            return refused(entry.id, entry.uri, error.reason, time.perf_counter() - started)
        found = judged.conclusion
        return {
            "id": entry.id,
            "uri": entry.uri,
            "decision": found.decision,
            "domain": {"inside": found.domain.inside, "signals": [s.name for s in found.domain.outside_by]},
            "provenance": {
                "declared": found.provenance.declared,
                "listing": found.provenance.listing,
                "sources": [s.code for s in found.provenance.sources],
            },
            "prediction": judged.verdict.prediction,
            "probability": judged.verdict.probability,
            "confidence": judged.verdict.confidence,
            "threshold": self._detector.rule.threshold,
            "model_version": self._work.model_version,
            "model_digest": self._detector.manifest.digest,
            "image_sha256": found.image_sha256,
            "width": judged.info.width,
            "height": judged.info.height,
            "format": judged.info.format,
            "seconds": judged.seconds,
        }


def policy_of(config: CatalogueConfig) -> Policy:
    """How a job decides, by the one rule of server and command line.

    Raises:
        TrustListError: a list of signers cannot be read.
    """
    verifier = Verifier([Path(name) for name in config.c2pa_trust_lists])
    real_below, ai_from = config.decision_real_below, config.decision_ai_from
    return Policy(verifier, None if real_below < 0.0 else real_below, None if ai_from < 0.0 else ai_from)


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
