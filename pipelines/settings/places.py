"""Where stages run: the images they run in and the machines they are given."""

import re
from typing import Final, Literal

from pydantic import Field, field_validator

from pipelines.settings.names import TRAIN_STAGES, Stage
from serving.platform.frozen import Section

_DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
NEVER_PUSHED: Final = "@sha256:" + "0" * 64


_G2: Final = {4: 1, 8: 1, 12: 1, 16: 1, 32: 1, 24: 2, 48: 4, 96: 8}
"""CPUs of a G2 machine -> its L4s (Compute Engine documentation)."""
_N1_MOST_CPUS: Final = {0: 96, 1: 16, 2: 32, 4: 96}
"""T4s -> CPUs of the largest N1 machine that Vertex AI attaches so many to (Vertex AI documentation, machine types)."""


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
    """On each machine; training starts a process for each."""
    nodes: int = Field(default=1, ge=1, le=16)
    """Machines that train together, in a job that the stage submits and follows: Vertex AI's custom job, Kubeflow's
    TrainJob."""
    spot: bool = False
    """Spot machines (training on Vertex AI only): cheaper, may be taken away; training goes on from its last epoch."""

    @field_validator("accelerator")
    @classmethod
    def _known_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"NVIDIA_[A-Z0-9_]+", value):
            raise ValueError("an accelerator is named as Vertex AI names it, e.g. NVIDIA_TESLA_T4")
        return value

    @property
    def in_own_job(self) -> bool:
        """Whether training runs in a custom job: a stage's own machine is one, and always on demand."""
        return self.nodes > 1 or self.spot

    @property
    def machine_type(self) -> str:
        """Vertex AI's smallest machine with at least these CPUs and memory; empty: there is none.

        A stage's machine is chosen by Vertex AI itself; a custom job has to name it.
        """
        if self.accelerator == "NVIDIA_L4":
            shapes = [
                (cpu, 4.0 * cpu, f"g2-standard-{cpu}") for cpu, count in _G2.items() if count == self.accelerator_count
            ]
        else:
            most = _N1_MOST_CPUS.get(self.accelerator_count, 0)
            shapes = [
                (cpu, per_cpu * cpu, f"n1-{family}-{cpu}")
                for family, per_cpu in (("standard", 3.75), ("highmem", 6.5))
                for cpu in (4, 8, 16, 32, 64, 96)
                if cpu <= most
            ]
        fit = [shape for shape in sorted(shapes) if shape[0] >= self.cpu and shape[1] >= self.memory_gb]
        return fit[0][2] if fit else ""


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
    """Let an earlier run of the same commit, images, data and settings answer for verify_data and train (both runs need
    it); evaluate and all after it read the registry and always run, and so does everything that a schedule starts."""
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
    trainer_runtime: str = ""
    """TrainingRuntime of Kubeflow Trainer by which several machines train, e.g. that of infra/kubernetes/training.yaml;
    empty: none."""
    shared_dir: str = ""
    """Folder of a volume that stages and training machines mount at the same place; empty: none."""
    token_file: str = ""
    """File with a token that the server's gateway takes, e.g. one projected into a pod; empty: none."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    """How long a question that meets a starting or overloaded server is asked again."""
    poll_s: float = Field(default=15.0, gt=0)
    """Pause between two looks at a run that is followed (`--sync`)."""
