"""The Prometheus metrics by their exact names, right with one worker process or many."""

import logging
import os
from collections.abc import Mapping
from math import nan, sqrt
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    multiprocess,
    values,
)
from prometheus_client.exposition import choose_encoder

from serving.detector.bundle import Manifest
from serving.detector.conclusion import Conclusion, DecisionBands
from serving.detector.decision import Verdict
from serving.detector.labels import Label

LATENCY_BUCKETS_S: Final = (0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PROBABILITY_BUCKETS: Final = tuple(i / 20 for i in range(1, 21))
BATCH_BUCKETS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
_Z95: Final = 1.959963984540054
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped library; a time series beside each that nobody reads


class Telemetry:
    """The metrics of one application; several may live in one process, each with its own registry.

    With `multiproc_dir` the values live in files there, one set a worker process, and `render` answers for all of them.
    The variable PROMETHEUS_MULTIPROC_DIR must then be set before `prometheus_client` is first imported.

    Raises:
        RuntimeError: `multiproc_dir` is given but the metrics library already chose in-memory values.
    """

    def __init__(self, multiproc_dir: Path | None = None) -> None:
        if multiproc_dir and values.ValueClass is values.MutexValue:
            raise RuntimeError("PROMETHEUS_MULTIPROC_DIR must be set before the server's process starts")
        self._multiproc_dir = multiproc_dir
        self.registry = CollectorRegistry()
        """Further metrics of the server register here."""
        self._model_info: tuple[str, ...] | None = None
        self._hits = self._called = 0
        self._http: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._define_predictions()
        self._define_decisions()
        self._define_model_and_load()
        self._define_http()
        if multiproc_dir is None:
            ProcessCollector(registry=self.registry)

    def _define_predictions(self) -> None:
        registry = self.registry
        self._predictions = Counter(
            "aidetect_predictions_total",
            "Images judged, and accepted images that got no verdict: an internal error, or no answer in time.",
            ["status", "prediction", "confidence"],
            registry=registry,
        )
        self._latency = Histogram(
            "aidetect_prediction_latency_seconds",
            "From a complete body to a verdict, for one image.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._probability = Histogram(
            "aidetect_prediction_probability",
            "Calibrated probability of ai_generated.",
            buckets=PROBABILITY_BUCKETS,
            registry=registry,
        )
        self._batches = Counter("aidetect_batch_predictions_total", "Batch requests answered.", registry=registry)
        self._batch_size = Histogram(
            "aidetect_batch_size", "Images in a batch request.", buckets=BATCH_BUCKETS, registry=registry
        )
        self._rejected = Counter(
            "aidetect_rejected_total", "Requests or images refused, by reason.", ["reason"], registry=registry
        )
        self._shadow = Counter(
            "aidetect_shadow_agreement_total",
            "Images the challenger judged too, by whether it agreed with the champion.",
            ["agree"],
            registry=registry,
        )

        self._troubles = Counter(
            "aidetect_record_troubles_total",
            "Rows of a record (drift, feedback) that could not be written yet or were dropped; files found damaged.",
            ["record", "trouble"],
            registry=registry,
        )
        for record in ("drift", "feedback"):
            for trouble in ("unwritten", "dropped", "damaged"):
                self._troubles.labels(record, trouble)
        self._storage_failures = Counter(
            "aidetect_rate_limit_storage_failures_total",
            "Times the shared rate limit storage failed and each process limited by itself.",
            registry=registry,
        )

    def _define_decisions(self) -> None:
        registry = self.registry
        self._decisions = Counter(
            "aidetect_decisions_total",
            "Images decided on, and whether they were of the kind the model was trained on.",
            ["decision", "domain"],
            registry=registry,
        )
        self._declared = Counter(
            "aidetect_declared_total",
            "Images whose file declares how it was made, by what the pixels alone were called and what was decided.",
            ["declared", "prediction", "decision"],
            registry=registry,
        )
        self._recall = Gauge(
            "aidetect_declared_recall",
            "Share of images declared AI-generated that the pixels alone were called so, with its 95 % interval.",
            ["bound"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._bands = Gauge(
            "aidetect_decision_threshold",
            "Probability of ai_generated below which a photo is likely_real, and from which on it is likely_ai.",
            ["decision"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )

    def _define_model_and_load(self) -> None:
        registry = self.registry
        # the modes say how the gauges of several workers become one; `live` forgets workers that ended
        self._loaded = Gauge(
            "aidetect_model_loaded",
            "1 when a verified model is loaded (in every worker).",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._loaded.set(0)
        self._info = Gauge(
            "aidetect_model_info",
            "1 for the model being served.",
            ["name", "version", "architecture", "input_px", "digest"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._drift_score = Gauge(
            "aidetect_drift_score",
            "Distance of the latest window from the reference, by signal.",
            ["signal"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._drift_alert = Gauge(
            "aidetect_drift_alert",
            "0 quiet, 1 the latest window moved, 2 alarm: two of the last three windows moved.",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._queue_depth = Gauge(
            "aidetect_queue_depth",
            "Jobs waiting for an engine slot.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def _define_http(self) -> None:
        self._http_requests = Counter(
            "http_requests_total",
            "Requests answered; 499 stands for a client that left first.",
            ["method", "endpoint", "status"],
            registry=self.registry,
        )
        self._http_duration = Histogram(
            "http_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            ["method", "endpoint"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def prediction(self, verdict: Verdict, seconds: float) -> None:
        """One image was judged, `seconds` after its request's body was complete."""
        self._predictions.labels("success", verdict.prediction, verdict.confidence).inc()
        self._latency.observe(seconds)
        self._probability.observe(verdict.probability)

    def predictions_failed(self, images: int) -> None:
        """Acceptable images got no verdict: a fault of the server, never a refusal of what the client sent."""
        self._predictions.labels("error", "none", "none").inc(images)

    def record_trouble(self, record: str, trouble: str, rows: int) -> None:
        """`record` (drift, feedback) could not be written, lost rows or was damaged; see `Recorder`."""
        self._troubles.labels(record, trouble).inc(max(1, rows))

    def decision(self, found: Conclusion, prediction: Label) -> None:
        """One image was decided on; the labels come from fixed sets."""
        self._decisions.labels(found.decision, "inside" if found.domain.inside else "outside").inc()
        if found.provenance.declared != "none":
            self._declared.labels(found.provenance.declared, prediction, found.decision).inc()
        if found.provenance.declared == "ai_generated":
            self._tell_recall(prediction == "ai_generated")

    def _tell_recall(self, hit: bool) -> None:
        """Of the model that serves now, as this process saw it: live labels that cost no annotator."""
        self._hits, self._called = self._hits + hit, self._called + 1
        for bound, value in zip(("value", "low", "high"), wilson(self._hits, self._called), strict=True):
            self._recall.labels(bound).set(value)

    def bands(self, bands: DecisionBands) -> None:
        """The thresholds of decisions that are in force."""
        if self._called:
            # what was counted is the last model's: it must not wake anybody to train this one again
            for bound in ("value", "low", "high"):
                self._recall.labels(bound).set(nan)
        self._hits = self._called = 0
        self._bands.labels("likely_real").set(bands.real_below)
        self._bands.labels("likely_ai").set(bands.ai_from)
        _log.info(
            "decisions: likely_real below %.4f, likely_ai from %.4f on, review between", bands.real_below, bands.ai_from
        )

    def batch(self, size: int) -> None:
        """A batch request of `size` images was answered."""
        self._batches.inc()
        self._batch_size.observe(size)

    def rejected(self, reason: str) -> None:
        """A request or image was refused; `reason` comes from a fixed set."""
        self._rejected.labels(reason).inc()

    def queue_depth(self, jobs: int) -> None:
        """So many jobs of this worker wait for an engine slot."""
        self._queue_depth.set(jobs)

    def model_loaded(self, manifest: Manifest, version: str) -> None:
        """This model now serves; the one before it no longer does."""
        labels = (manifest.name, version, manifest.architecture, str(manifest.input_px), manifest.digest[:12])
        if self._model_info not in (None, labels):
            self._retire(self._model_info)
        self._info.labels(*labels).set(1)
        self._model_info = labels
        self._loaded.set(1)

    def _retire(self, labels: tuple[str, ...] | None) -> None:
        if labels is None:
            return
        if self._multiproc_dir is None:
            self._info.remove(*labels)
        else:
            # a series cannot be taken back from the shared files
            self._info.labels(*labels).set(0)

    def rate_limit_storage_failed(self) -> None:
        """The shared rate limit storage did not answer."""
        self._storage_failures.inc()

    def shadow(self, agree: bool) -> None:
        """The challenger judged an image too."""
        self._shadow.labels("true" if agree else "false").inc()

    def drift(self, scores: Mapping[str, float], level: int) -> None:
        """The latest window's distance by signal, and how loud it is (see `aidetect_drift_alert`)."""
        for signal, score in scores.items():
            self._drift_score.labels(signal).set(score)
        self._drift_alert.set(level)

    def http(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered; `endpoint` is a route template."""
        key = (method if method in METHODS else "OTHER", endpoint, status)
        found = self._http.get(key)
        if found is None:
            found = self._http[key] = (
                self._http_requests.labels(key[0], endpoint, str(status)),
                self._http_duration.labels(key[0], endpoint),
            )
        found[0].inc()
        found[1].observe(seconds)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body and content type for a scraper that sent this `Accept` header."""
        encode, content_type = choose_encoder(accept)
        registry = self.registry
        if self._multiproc_dir is not None:
            _forget_ended_workers(self._multiproc_dir)
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=str(self._multiproc_dir))  # type: ignore[no-untyped-call]  # untyped library
        return encode(registry), content_type


def wilson(hits: int, n: int) -> tuple[float, float, float]:
    """A share and its 95 % interval (E. B. Wilson, 1927); `n` at least 1."""
    share, z2 = hits / n, _Z95 * _Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return share, max(0.0, centre - half), min(1.0, centre + half)


def _forget_ended_workers(folder: Path) -> None:
    # a crashed worker cannot take its gauges along
    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*_*.db")}:
        if not _is_alive(pid):
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # untyped library


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
