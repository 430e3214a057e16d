"""All sections together: the type of `pipeline_config.yaml`."""

from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, field_validator

from components.catalogue.config import CatalogueConfig
from components.deploy.config import DeployConfig
from components.evaluate.config import EvaluateConfig
from components.quality_gate.config import GateConfig
from components.register.config import RegisterConfig
from components.train.config import ClusterConfig, PlacedTrainConfig, TrainConfig, TrainerConfig
from components.verify_data.classes import checked_labels
from components.verify_data.config import VerifyDataConfig
from pipelines.settings.operations import CatalogueScheduleConfig, CostConfig, RetrainConfig, ScheduleConfig
from pipelines.settings.places import (
    NEVER_PUSHED,
    DockerConfig,
    ImagesConfig,
    KubeflowConfig,
    Machine,
    MachinesConfig,
    VertexConfig,
    is_pinned,
)
from serving.platform.frozen import Section

SQLITE: Final = "sqlite:///"


class DataConfig(Section):
    """Where the images are."""

    uri: str = "data/sample"
    """Folder, Parquet folder, `gs://` of either, `hf://dataset`, or a table (CSV, TSV, Parquet) of paths and labels."""
    labels: dict[str, str] = {}
    """Class names of one's own, e.g. `{genuine: real, synthetic: ai_generated}`; what is not mapped is refused."""

    @field_validator("labels")
    @classmethod
    def _classes_are_known(cls, labels: dict[str, str]) -> dict[str, str]:
        return checked_labels(labels.items())


class PathsConfig(Section):
    """Where runs, the registry and caches lie on this disk."""

    workspace: Path = Path("workspace")


class TrackingConfig(Section):
    """MLflow tracking and registry."""

    uri: str = ""
    """Server URI; empty: sqlite in the workspace."""
    experiment: str = "ai-product-photo-detector"
    model_name: str = "ai-product-photo-detector"


class DeploySection(DeployConfig):
    """The deploy stage's knobs and whether it runs at all."""

    auto: bool = True
    """False: a run stops after register; `aidetect deploy` goes on from there."""

    @property
    def starts_server(self) -> bool:
        """Whether the stage starts the server from its own environment, not a service elsewhere."""
        return self.target == "local"


class PipelineConfig(Section):
    """Every knob of the system."""

    data: DataConfig = DataConfig()
    paths: PathsConfig = PathsConfig()
    tracking: TrackingConfig = TrackingConfig()
    verify_data: VerifyDataConfig = Field(default_factory=VerifyDataConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    gate: GateConfig = Field(default_factory=GateConfig)
    register_: RegisterConfig = Field(default_factory=RegisterConfig, alias="register")
    deploy: DeploySection = Field(default_factory=DeploySection)
    catalogue: CatalogueConfig = CatalogueConfig()
    images: ImagesConfig = ImagesConfig()
    machines: MachinesConfig = MachinesConfig()
    docker: DockerConfig = DockerConfig()
    vertex: VertexConfig = VertexConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    catalogue_schedule: CatalogueScheduleConfig = CatalogueScheduleConfig()
    retrain: RetrainConfig = RetrainConfig()
    cost: CostConfig = CostConfig()

    @property
    def tracking_uri(self) -> str:
        """MLflow URI in force: the configured server, or sqlite in the workspace."""
        return self.tracking.uri or f"{SQLITE}{self.paths.workspace.resolve() / 'mlflow.db'}"

    @property
    def has_registry(self) -> bool:
        """Whether there is something to ask: a server, or a database that a run has made."""
        database = self.tracking_uri.removeprefix(SQLITE)
        return database == self.tracking_uri or Path(database).is_file()

    @property
    def artifact_root(self) -> str:
        """Where a sqlite registry's files go; empty: the server decides."""
        sqlite = self.tracking_uri.startswith(SQLITE)
        return (self.paths.workspace.resolve() / "mlflow-artifacts").as_uri() if sqlite else ""

    @property
    def serving_image(self) -> str:
        """The one image that versions are registered and first released with."""
        return self.register_.serving_image or self.images.serving

    @property
    def named_images(self) -> dict[str, str]:
        """Every image that a run names, by its key: those of the stages, and what register and deploy serve with."""
        images = {f"images.{name}": image for name, image in self.images.model_dump().items()}
        if self.register_.vertex and self.register_.serving_image:
            images["register.serving_image"] = self.register_.serving_image
        if self.deploy.target == "cloud_run" and self.deploy.image:
            images["deploy.image"] = self.deploy.image
        return images

    def with_serving_image(self) -> Self:
        """The same with that image wherever a stage looks for it."""
        known = is_pinned(self.images.serving) and not self.images.serving.endswith(NEVER_PUSHED)
        first = self.deploy.first_image or (self.images.serving if known else "")
        return self.changed("register_", serving_image=self.serving_image).changed("deploy", first_image=first)

    def with_accelerator_used(self) -> Self:
        """The same with `cuda` where an accelerator is paid for: one that does not answer must fail the stage at once.

        Left to choose, training would go on for days on the machine's processor, and the accelerator be billed.
        """
        paid = bool(self.machines.train.accelerator_count) and self.train.device == "auto"
        return self.changed("train", device="cuda") if paid else self

    def with_cluster(self) -> Self:
        """The same with machines that train together, or spot ones, told to the stage, which then asks for them itself.

        The stage's own machine only follows their job: a small one, without an accelerator.
        """
        machine, vertex = self.machines.train, self.vertex
        if not machine.in_own_job:
            return self
        cluster = ClusterConfig(
            nodes=machine.nodes,
            spot=machine.spot,
            project=vertex.project,
            region=vertex.region,
            image=self.images.train,
            machine_type=machine.machine_type,
            accelerator=machine.accelerator,
            accelerator_count=machine.accelerator_count,
            service_account=vertex.service_account,
            network=vertex.network,
            labels=vertex.labels,
            api_endpoint=vertex.api_endpoint,
            request_timeout_s=vertex.request_timeout_s,
            poll_s=vertex.poll_s,
        )
        return self._placed(cluster)

    def with_trainer(self) -> Self:
        """The same with machines of a Kubernetes cluster that train together told to the stage, as `with_cluster` does.

        Without what `preflight` asks for, nothing is told: the run is refused there.
        """
        machine, kubeflow = self.machines.train, self.kubeflow
        if machine.nodes == 1 or not (kubeflow.trainer_runtime and kubeflow.shared_dir):
            return self
        return self._placed(
            TrainerConfig(
                nodes=machine.nodes,
                image=self.images.train,
                cpu=machine.cpu,
                memory_gb=machine.memory_gb,
                accelerator=kubeflow.accelerator if machine.accelerator_count else "",
                accelerator_count=machine.accelerator_count,
                runtime=kubeflow.trainer_runtime,
                shared_dir=kubeflow.shared_dir,
                request_timeout_s=kubeflow.request_timeout_s,
                poll_s=kubeflow.poll_s,
            )
        )

    def _placed(self, cluster: ClusterConfig | TrainerConfig) -> Self:
        return self.model_copy(update={"train": PlacedTrainConfig(**self.train.model_dump(), cluster=cluster)})

    @property
    def task_machines(self) -> MachinesConfig:
        """Machines of the stages' own tasks: where training has a job of its own, the task only follows it."""
        follows = self.machines.train.in_own_job
        return self.machines.model_copy(update={"train": Machine()}) if follows else self.machines

    def changed(self, section: str, **keys: Any) -> Self:
        """The same with other values in one section."""
        return self.model_copy(update={section: getattr(self, section).model_copy(update=keys)})

    def for_catalogue(self, source: str, output: str, model_uri: str = "") -> Self:
        """The same for the pipeline that scores a catalogue.

        What a run reads is its source, and no task of it trains: checks of places and machines then hold for it.
        """
        machines = self.machines.model_copy(update={"train": self.machines.verify_data, "evaluate": Machine()})
        config = self.changed("catalogue", source=source, output=output, model_uri=model_uri)
        return config.changed("data", uri=source).model_copy(update={"machines": machines})

    def on_this_disk(self) -> Self:
        """The same with relative paths made absolute: data against this folder, records against the workspace."""
        workspace = self.paths.workspace.resolve()

        def absolute(place: str, base: Path) -> str:
            return place if not place or "://" in place else str(base / place)

        return (
            self.changed("data", uri=absolute(self.data.uri, Path.cwd()))
            .changed(
                "catalogue",
                source=absolute(self.catalogue.source, Path.cwd()),
                output=absolute(self.catalogue.output, Path.cwd()),
            )
            .changed(
                "train",
                checkpoint_dir=absolute(self.train.checkpoint_dir, workspace),
                weights_uri=absolute(self.train.weights_uri, Path.cwd()),
            )
            .changed("evaluate", outside=absolute(self.evaluate.outside, Path.cwd()))
            .changed("deploy", ledger_path=absolute(self.deploy.ledger_path, workspace))
            .changed("retrain", state_path=absolute(self.retrain.state_path, workspace))
        )
