"""What on-call must know of the model's life and no request shows: its age, and whether its successors get through."""

import json
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.detector.bundle import Manifest
from serving.platform.records import read_record

ModelName = Literal["champion", "challenger"]


class LifecycleMetrics:
    """Gauges of the served model's age and of the pipeline's latest runs, read when they are scraped."""

    def __init__(self, registry: CollectorRegistry, runs: Path | None) -> None:
        """Register the gauges.

        Args:
            registry: the server's.
            runs: the pipeline's `workspace/runs`; None where this server does not see it (the gauges stay 0).
        """
        self._runs = runs
        self._seen: tuple[float, int] | None = None

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, multiprocess_mode="livemostrecent", registry=registry)

        self._created = gauge(
            "aidetect_model_created_timestamp_seconds", "When the served model was trained, in Unix time."
        )
        self._refusals = gauge(
            "aidetect_gate_refusals_in_a_row", "Pipeline runs refused by the quality gate since one last passed."
        )
        self._last_run = gauge(
            "aidetect_pipeline_last_run_timestamp_seconds", "When the latest finished pipeline run began; 0: none seen."
        )

        self._failures = Counter(
            "aidetect_model_refresh_failures_total",
            "Times a new model was refused, or none could be looked for; the one before it goes on serving.",
            ["model"],
            registry=registry,
        )
        # there from the start, so that the first failure is an increase
        for name in get_args(ModelName):
            self._failures.labels(name)

    def refresh_failed(self, model: ModelName) -> None:
        """A model that was to take over did not."""
        self._failures.labels(model).inc()

    def serve(self, manifest: Manifest) -> None:
        """This model now serves."""
        try:
            created = datetime.fromisoformat(manifest.provenance.created_at).timestamp()
        except (ValueError, OverflowError):
            created = 0.0
        self._created.set(created)

    def refresh(self) -> None:
        """Read the run records again if there are other ones; blocks for a moment."""
        if self._runs is None:
            return
        records = sorted(self._runs.glob("*/run.json"))
        seen = (max((path.stat().st_mtime for path in records), default=0.0), len(records))
        if seen == self._seen:
            return
        self._seen = seen
        runs = [run for path in records if (run := _read(path)) is not None and run["status"] != "running"]
        runs.sort(key=_started, reverse=True)
        refused = 0
        for run in runs:
            if run["status"] in ("deployed", "registered"):
                break
            refused += run["status"] == "refused"
        self._refusals.set(refused)
        self._last_run.set(_started(runs[0]) if runs else 0.0)


def _read(path: Path) -> dict[str, str] | None:
    try:
        document = json.loads(read_record(path))
        datetime.fromisoformat(document["started_at"])
        return {"status": document["status"], "started_at": document["started_at"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # half a record, another program's, or far too large for one: not worth an outage


def _started(run: dict[str, str]) -> float:
    return datetime.fromisoformat(run["started_at"]).timestamp()
