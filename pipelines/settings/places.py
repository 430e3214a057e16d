"""Where stages run: the images they run in and the machines they are given."""

import re
from typing import Final, Literal

from pydantic import Field, field_validator

from pipelines.settings.names import TRAIN_STAGES, Stage
from serving.platform.frozen import Section

_DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
NEVER_PUSHED: Final = "@sha256:" + "0" * 64


class ImagesConfig(Section):
    """The three images of a release, as references a registry can resolve."""

    train: str = "ai-product-photo-detector/train:dev"
    pipeline: str = "ai-product-photo-detector/pipeline:dev"
    serving: str = "ai-product-photo-detector/serving:dev"

    def of(self, stage: Stage) -> str:
        """Image that a stage runs in."""
        return self.train if stage in TRAIN_STAGES else self.pipeline


def is_pinned(image: str) -> bool:
    """Whether the reference names its content (`@sha256:` and 64 hexadecimal digits), not a movable tag."""
    return _DIGEST.search(image) is not None


class Machine(Section):
    """Limits of one stage's container."""

    cpu: int = Field(default=4, ge=1, le=96)
    memory_gb: int = Field(default=15, ge=1, le=624)
    accelerator: str = ""
    """Vertex AI's name of the accelerator, e.g. NVIDIA_TESLA_T4; empty: none."""
    accelerator_count: int = Field(default=0, ge=0, le=8)

    @field_validator("accelerator")
    @classmethod
    def _known_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"NVIDIA_[A-Z0-9_]+", value):
            raise ValueError("an accelerator is named as Vertex AI names it, e.g. NVIDIA_TESLA_T4")
        return value


class MachinesConfig(Section):
    """Machine per stage. 8 CPUs and 30 GB with a T4 is Vertex AI's n1-standard-8."""

    verify_data: Machine = Machine(cpu=8, memory_gb=30)
    train: Machine = Machine(cpu=8, memory_gb=30, accelerator="NVIDIA_TESLA_T4", accelerator_count=1)
    evaluate: Machine = Machine(cpu=8, memory_gb=30)
    quality_gate: Machine = Machine()
    register_: Machine = Field(default=Machine(), alias="register")
    deploy: Machine = Machine()

    def of(self, stage: Stage) -> Machine:
        """Machine of a stage."""
        machine: Machine = getattr(self, "register_" if stage == "register" else stage)
        return machine


class DockerConfig(Section):
    """A run in containers on this machine (`--on docker`)."""

    deploy_image: str = "ai-product-photo-detector/local:dev"
    """Image of deploy when its target is `local`: it starts the server from its own environment, so it holds both."""


class VertexConfig(Section):
    """Vertex AI Pipelines."""

    project: str = ""
    region: str = "europe-west1"
    bucket: str = ""
    service_account: str = ""
    network: str = ""
    labels: dict[str, str] = {}
    caching: bool = False
    failure_policy: Literal["fast", "slow"] = "fast"
    api_endpoint: str = ""
    """Another address of the Vertex AI API, e.g. a private endpoint; empty: Google's own."""
    quota_endpoint: str = ""
    """Another address of the Service Usage API, which tells quotas; empty: Google's own."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    poll_s: float = Field(default=15.0, gt=0)
    """Pause between two looks at a run that is followed (`--sync`)."""

    @property
    def pipeline_root(self) -> str:
        """Where KFP keeps the runs' artifacts."""
        return f"{self.bucket.rstrip('/')}/pipeline-root"


class KubeflowConfig(Section):
    """Open-source Kubeflow Pipelines."""

    host: str = ""
    namespace: str = ""
    experiment: str = "ai-product-photo-detector"
    accelerator: str = "nvidia.com/gpu"
    pipeline_root: str = ""
    time_zone: str = "Etc/UTC"
    """Zone in which the server reads crons: CRON_SCHEDULE_TIMEZONE of its scheduled-workflow controller."""
    service_account: str = ""
    """Kubernetes service account of the stages; empty: the server's default."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    """How long a question that meets a starting or overloaded server is asked again."""
    poll_s: float = Field(default=15.0, gt=0)
    """Pause between two looks at a run that is followed (`--sync`)."""
