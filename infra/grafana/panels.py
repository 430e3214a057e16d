"""What the dashboards show, panel by panel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["timeseries", "stat", "bargauge"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: expressions with their legends, a unit, and thresholds (value, colour) where they say something."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 12
    stacked: bool = False
    thresholds: Sequence[tuple[float, str]] = ()
    description: str = ""


def quantiles(metric: str, by: str = "le") -> list[tuple[str, str]]:
    """p50, p90 and p99 of a histogram over all replicas."""
    return [
        (f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket[$__rate_interval])))", f"p{round(q * 100)}")
        for q in (0.5, 0.9, 0.99)
    ]


TRAFFIC: Final = [
    Panel(
        "Requests by route",
        [("sum by (endpoint) (rate(http_requests_total[$__rate_interval]))", "{{endpoint}}")],
        "reqps",
    ),
    Panel(
        "Answers by status",
        [("sum by (status) (rate(http_requests_total[$__rate_interval]))", "{{status}}")],
        "reqps",
        stacked=True,
    ),
    Panel(
        "Images judged",
        [("sum by (prediction) (rate(aidetect_predictions_total[$__rate_interval]))", "{{prediction}}")],
        "ops",
        stacked=True,
    ),
    Panel(
        "Refused",
        [("sum by (reason) (rate(aidetect_rejected_total[$__rate_interval]))", "{{reason}}")],
        "ops",
        stacked=True,
    ),
    Panel("Batches", [("sum(rate(aidetect_batch_predictions_total[$__rate_interval]))", "batches")], "ops"),
    Panel("Images in a batch", quantiles("aidetect_batch_size"), "short"),
]
LATENCY: Final = [
    Panel(
        "From complete body to verdict",
        quantiles("aidetect_prediction_latency_seconds"),
        "s",
        thresholds=[(0.5, "red")],
    ),
    Panel(
        "Images slower than 0.5 s",
        [("aidetect:prediction_slow:ratio_rate5m", "5 min"), ("aidetect:prediction_slow:ratio_rate1h", "1 h")],
        "percentunit",
        thresholds=[(0.01, "red")],
        description="Objective: 1 %.",
    ),
    Panel(
        "HTTP p99 by route",
        [
            (
                "histogram_quantile(0.99, sum by (le, endpoint) "
                "(rate(http_request_duration_seconds_bucket[$__rate_interval])))",
                "{{endpoint}}",
            )
        ],
        "s",
    ),
    Panel(
        "Failed prediction requests",
        [("aidetect:prediction_errors:ratio_rate5m", "5 min"), ("aidetect:prediction_errors:ratio_rate1h", "1 h")],
        "percentunit",
        thresholds=[(0.005, "red")],
        description="Objective: 0.5 %.",
    ),
    Panel("Jobs waiting for a slot", [("aidetect_queue_depth", "{{instance}}")]),
    Panel("Replicas up", [('sum(up{job="aidetect"})', "up")], kind="stat"),
]
MODEL: Final = [
    Panel(
        "Drift",
        [("aidetect:drift_alert:max", "level")],
        kind="stat",
        width=6,
        thresholds=[(1, "orange"), (2, "red")],
        description="0 quiet, 1 the latest window moved, 2 alarm. Runbooks: drift-warning, drift-alarm.",
    ),
    Panel(
        "Distance from the reference, by signal",
        [("aidetect:drift_score:max", "{{signal}}")],
        kind="bargauge",
        width=18,
        thresholds=[(0.05, "orange")],
        description="Latest closed window; PSI for score_psi, else the share of traffic that moved.",
    ),
    Panel("Called ai_generated", [("aidetect:ai_generated:share1h", "share, 1 h")], "percentunit"),
    Panel("Low confidence", [("aidetect:low_confidence:share1h", "share, 1 h")], "percentunit"),
    Panel("Probability of ai_generated", quantiles("aidetect_prediction_probability"), "percentunit"),
    Panel(
        "Confidence mix",
        [("sum by (confidence) (rate(aidetect_predictions_total[$__rate_interval]))", "{{confidence}}")],
        "ops",
        stacked=True,
    ),
    Panel(
        "Decisions",
        [("sum by (decision, domain) (rate(aidetect_decisions_total[$__rate_interval]))", "{{decision}}, {{domain}}")],
        "ops",
        stacked=True,
        description="Outside: unlike the photos the model was trained on, and so for review.",
    ),
    Panel(
        "What files declare of themselves",
        [
            (
                "sum by (declared, decision) (rate(aidetect_declared_total[$__rate_interval]))",
                "{{declared}}, {{decision}}",
            )
        ],
        "ops",
        stacked=True,
        description="Of images whose file says how it was made, and what was decided on them.",
    ),
    Panel(
        "Recall on uploads that declare themselves generated",
        [("max by (bound) (aidetect_declared_recall)", "{{bound}}")],
        "percentunit",
        description="By the pixels alone, with its 95 % interval; since the served model was loaded.",
    ),
    Panel(
        "Precision and recall on labelled images",
        [("min(aidetect_feedback_precision)", "precision"), ("min(aidetect_feedback_recall)", "recall")],
        "percentunit",
        description="Of images whose true label came back; reviewers see hard cases first.",
    ),
    Panel(
        "Labels received",
        [("sum by (prediction, label) (aidetect_feedback_total)", "called {{prediction}}, is {{label}}")],
    ),
]
LIFE: Final = [
    Panel(
        "Model loaded",
        [("min(aidetect_model_loaded)", "loaded")],
        kind="stat",
        width=6,
        thresholds=[(0, "red"), (1, "green")],
    ),
    Panel(
        "Served version",
        [("max by (version, architecture) (aidetect_model_info == 1)", "{{version}} ({{architecture}})")],
        kind="stat",
        width=6,
    ),
    Panel(
        "Age of the champion",
        [("time() - min(aidetect_model_created_timestamp_seconds > 0)", "age")],
        "s",
        kind="stat",
        width=6,
        thresholds=[(90 * 86400, "red")],
    ),
    Panel(
        "Runs refused in a row",
        [("max(aidetect_gate_refusals_in_a_row)", "refused")],
        kind="stat",
        width=6,
        thresholds=[(3, "red")],
    ),
    Panel(
        "Latest pipeline run",
        [("max(aidetect_pipeline_last_run_timestamp_seconds) * 1000", "began")],
        "dateTimeFromNow",
        kind="stat",
    ),
    Panel(
        "Challenger agrees",
        [("1 - aidetect:shadow_disagreement:share1h", "share, 1 h")],
        "percentunit",
        description="Only while a challenger is loaded (SHADOW_MODEL_URI).",
    ),
    Panel(
        "Memory",
        [("process_resident_memory_bytes", "{{instance}} {{job}}")],
        "bytes",
        description="One process a server; several workers do not export it.",
    ),
    Panel(
        "CPU",
        [("rate(process_cpu_seconds_total[$__rate_interval])", "{{instance}} {{job}}")],
        "percentunit",
        description="Of one core; several workers do not export it.",
    ),
]

DASHBOARDS: Final[dict[str, tuple[str, Sequence[Panel]]]] = {
    "traffic": ("Throughput", TRAFFIC),
    "latency": ("Latency and errors", LATENCY),
    "model": ("Predictions and drift", MODEL),
    "lifecycle": ("Model and pipeline health", LIFE),
}
