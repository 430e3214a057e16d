"""When the pipeline runs again, by the clock or by its evidence, and what an estimate of its cost assumes."""

import re
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from pipelines.settings.names import CloudName, Stage
from serving.platform.frozen import Section

_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_PART: Final = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?")


class ScheduleConfig(Section):
    """The recurring run; `aidetect schedule apply` makes the cloud agree with it."""

    enabled: bool = False
    """False: `apply` pauses what stands and makes nothing."""
    target: CloudName = "vertex"
    name: str = Field("ai-product-photo-detector-retraining", min_length=1, max_length=128)
    """Under this name the schedule is found again; one name has one schedule."""
    cron: str = "0 3 * * 1"
    """Minute, hour, day of the month, month, day of the week (0 or 7 is Sunday), in numbers."""
    time_zone: str = "Etc/UTC"
    """IANA name, e.g. Europe/Paris."""
    max_concurrent_runs: int = Field(1, ge=1, le=10)
    """A run that comes due while so many are still going is skipped."""

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != len(_FIELDS):
            raise ValueError("a cron has five fields: minute hour day month weekday, e.g. '0 3 * * 1'")
        for text, (name, low, high) in zip(fields, _FIELDS, strict=True):
            for part in text.split(","):
                found = _PART.fullmatch(part)
                ends = [int(end) for end in (found[1], found[2]) if end] if found else []
                if not found or any(not low <= end <= high for end in ends) or ends != sorted(ends):
                    raise ValueError(
                        f"the {name} of a cron is *, a number from {low} to {high}, a range, a list or */n"
                    )
        return " ".join(fields)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise ValueError("no such time zone; write an IANA name, e.g. Europe/Paris") from error
        return value


class CatalogueScheduleConfig(ScheduleConfig):
    """The recurring run that scores a catalogue; what and where to: `catalogue.source`, `catalogue.output`."""

    name: str = Field("ai-product-photo-catalogue", min_length=1, max_length=128)
    cron: str = "0 1 * * *"


class RetrainConfig(Section):
    """When a new model is worth a pipeline run."""

    max_age_days: float = Field(90.0, gt=0)
    min_new_labels: int = Field(500, ge=1)
    """Labels received since the served model was trained."""
    min_declared_recall: float = Field(0.8, ge=0, le=1)
    """Of uploads that declare themselves generated, at least so many must look so to the model: judged by the upper end
    of the 95 % interval, so that a few misses are no reason."""
    cool_down_hours: float = Field(24.0, ge=0)
    """At least so long between two started runs, whatever the reason."""
    retry_days: float = Field(7.0, ge=0)
    """After so long the same finding about the same model version may start another run."""
    state_path: str = "retrain.jsonl"
    """Append-only record of the runs started, which cool-down and deduplication read; relative: in the workspace;
    `gs://` where the deciding machine starts with an empty disk, as a CI runner does."""
    feedback_path: str = ""
    """The server's `feedback.jsonl`, where this machine sees it, its `gs://` copy, or the folder `labels/` of the
    service's EVIDENCE_URI (`gs://.../labels/`); empty: labels are no reason."""


class StageMinutes(Section):
    """Minutes of each stage; what runs recorded on Vertex AI took replaces these."""

    verify_data: float = Field(5, ge=0)
    train: float = Field(25, ge=0)
    """The target for CIFAKE at 224 px on a T4; not measured on one yet."""
    evaluate: float = Field(15, ge=0)
    quality_gate: float = Field(1, ge=0)
    register_: float = Field(2, ge=0, alias="register")
    deploy: float = Field(5, ge=0)

    def of(self, stage: Stage) -> float:
        """Minutes of a stage."""
        minutes: float = getattr(self, "register_" if stage == "register" else stage)
        return minutes


class CostConfig(Section):
    """What an estimate assumes where nothing is recorded."""

    stage_minutes: StageMinutes = StageMinutes()
    min_instances: int = Field(1, ge=0)
    """Cloud Run instances kept warm; Terraform's `min_instances` of prod."""
    service_cpu: int = Field(2, ge=1)
    service_memory_gib: float = Field(2.0, gt=0)
    storage_gb: float = Field(5.0, ge=0)
    """Data, pipeline roots and bundles in Cloud Storage."""
    storage_growth_gb: float = Field(1.0, ge=0)
    """What every month adds: models, runs' files, labels; a year of it is averaged into the month."""
    images_gb: float = Field(10.0, ge=0)
    """The images in Artifact Registry, as its clean-up policy leaves them."""
    database_cpu: int = Field(1, ge=0)
    """CPUs of MLflow's database (Terraform's `mlflow_database_tier`); 0: no MLflow of this deployment's own."""
    database_memory_gb: float = Field(3.75, ge=0)
    database_disk_gb: float = Field(10.0, ge=0)
    mlflow_hours: float = Field(60.0, ge=0)
    """Hours of a month in which MLflow's server is awake: during runs and while somebody looks."""
    metrics_sidecar: bool = True
    """The sidecar that brings /metrics to Managed Service for Prometheus, beside each warm instance."""
    metric_series: int = Field(400, ge=0)
    """Time series of an instance, each a sample in 30 s."""
    preview_hours: float = Field(20.0, ge=0)
    """Hours of a month in which previews of pull requests answer; between requests they cost nothing."""
