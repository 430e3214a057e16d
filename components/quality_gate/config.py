"""What a model must show before it may be registered; the section `gate` of pipeline_config.yaml."""

from typing import Literal

from pydantic import Field

from serving.platform.frozen import Section

OptionalCheck = Literal[
    "fpr",
    "ece",
    "slice_accuracy",
    "slice_fpr",
    "corruption_accuracy",
    "corruption_fpr",
    "confident_errors_outside",
    "latency",
    "size",
    "champion_accuracy",
    "champion_f1",
    "champion_slices",
    "test_images",
]


class GateConfig(Section):
    """Knobs of the stage quality_gate; the defaults are those of production.

    Accuracy and F1 are always enforced: their floors can be set, not switched off. A limit that is None is not checked.
    """

    min_accuracy: float = Field(0.85, ge=0.0, le=1.0)
    min_f1: float = Field(0.80, ge=0.0, le=1.0)
    use_lower_bound: bool = False
    """Hold limits against the unfavourable end of the 95 % interval instead of the figure itself."""

    max_fpr: float | None = Field(None, ge=0.0, le=1.0)
    max_ece: float | None = Field(None, ge=0.0, le=1.0)
    min_worst_slice_accuracy: float | None = Field(None, ge=0.0, le=1.0)
    max_worst_slice_fpr: float | None = Field(None, ge=0.0, le=1.0)
    min_worst_corruption_accuracy: float | None = Field(None, ge=0.0, le=1.0)
    max_worst_corruption_fpr: float | None = Field(None, ge=0.0, le=1.0)
    max_confident_errors_outside: float | None = Field(None, ge=0.0, le=1.0)
    """Largest share of a class in the folder `evaluate.outside` that is called the other one with confidence `high`."""
    max_latency_ms: float | None = Field(None, gt=0.0)
    max_bundle_mb: float | None = Field(None, gt=0.0)
    min_slice_images: int = Field(50, ge=1)
    """Smaller slices are shown and not judged."""

    non_inferiority_margin: float = Field(0.005, ge=0.0, le=1.0)
    """The whole interval of the accuracy (and F1) difference to the champion must lie above minus this."""
    slice_margin: float = Field(0.05, ge=0.0, le=1.0)
    """Refused is what loses more than this on one slice, when the interval agrees that it loses at all."""
    report_only: tuple[OptionalCheck, ...] = ()
    """Checks that are shown and do not refuse."""

    min_test_images: int = Field(1000, ge=0)
    """Images of the test split, copies of one picture counted once, below which nothing passes."""
    leakage_warning_accuracy: float = Field(0.995, ge=0.0, le=1.0)
