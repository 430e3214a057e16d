"""Where a training runs: on this machine, or on those of a job that is followed to its end.

The job is Vertex AI's custom job, or a cluster's TrainJob (`trainjob.py`).
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from components.artifacts.context import RunContext
from components.platform.google_cloud import connect, google_errors, label, patience, reading
from components.platform.signals import sigterm_raises
from components.train import processes
from components.train.config import ClusterConfig, PlacedTrainConfig, TrainConfig, TrainerConfig
from components.train.nodes import ONE
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import CustomJob

    from components.train.stage import TrainSummary

_log = logging.getLogger(__name__)
_RUN: Final = "run-id"
_OVER: Final = frozenset({"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"})
_IN_VAIN: Final = _OVER - {"SUCCEEDED"}
_ATTEMPTS: Final = 3
"""Jobs of one training, where checkpoints let each go on from the one before."""
_SPOT_ATTEMPTS: Final = 8
"""The same on spot machines, which are taken away in the ordinary course of things."""
_SPOT_PAUSES: Final = (4, 120)
"""How many looks at a job the first pause before another takes, the next one twice as many; and the most."""

_BLIND: Final = 15
"""For how many times `request_timeout_s` a job that cannot be looked at goes on: hours of training hang on it."""


class Jobs(Protocol):
    """Those of one training, one after another."""

    attempts: int
    """How many may follow each other where one is lost."""

    def pause_s(self, attempt: int) -> float:
        """Seconds before the job that follows a lost one."""
        ...

    def standing(self) -> str:
        """A job of this run that is under way or has succeeded; empty: none."""
        ...

    def submit(self, folder: Path) -> str:
        """Ask for the machines, which find their order in the folder; the job's name."""
        ...

    def follow(self, name: str) -> tuple[str, str]:
        """Wait for a job's end, and end it where this process is told to end; how it ended, in words and in one."""
        ...


def train(
    dataset: Path, out: Path, config: PlacedTrainConfig, context: RunContext, curves: Path | None = None
) -> "TrainSummary | None":
    """Train as `stage.train` does, on the machines that the configuration names; without any, on this one.

    Its machines see the same folders: of Vertex AI `dataset`, `out` and `curves` lie in a bucket that is mounted at
    the same place on each, in a cluster copies of them in a volume. A stage that is started again for the same run
    goes on with the job that it had submitted.

    Raises:
        StageError: as `stage.train`; also: Google or the cluster refused the job, or it did not succeed.
    """
    alone = TrainConfig.model_validate(config.model_dump(exclude={"cluster"}))
    if config.cluster is None:
        return processes.train(dataset, out, alone, context, curves)
    if isinstance(config.cluster, TrainerConfig):
        from components.train.trainjob import TrainJobs, shared

        with (
            shared(config.cluster, context.run_id, dataset, out, curves) as places,
            TrainJobs(config.cluster, context.run_id, places.orders) as trainjobs,
        ):
            return _followed(trainjobs, places.orders, places.dataset, places.out, alone, context, places.curves)
    jobs = _Jobs(config.cluster, context.run_id)
    return _followed(jobs, out.parent / "cluster", dataset, out, alone, context, curves)


def _followed(
    jobs: Jobs, folder: Path, dataset: Path, out: Path, config: TrainConfig, context: RunContext, curves: Path | None
) -> "TrainSummary":
    """Order the training from a job that stands or a new one, and see it to its end."""
    name = jobs.standing()
    most = jobs.attempts if config.checkpoint_dir else 1
    for attempt in range(1, most + 1):
        if not name:
            processes.order(folder, dataset, out, config, context, curves)
            name = jobs.submit(folder)
        ended, state = jobs.follow(name)
        # a machine that was taken away fails the job without a word of ours: what its checkpoints hold is not lost
        lost = state == "FAILED" and not processes.explained(folder)
        if not lost or attempt == most:
            break
        pause_s = jobs.pause_s(attempt)
        _log.warning(
            "%s; job %d of at most %d goes on from the last checkpoint in %.0f s", ended, attempt + 1, most, pause_s
        )
        time.sleep(pause_s)
        name = ""
    if lost and most == _SPOT_ATTEMPTS:
        ended += f"; so did all {most} jobs on spot machines: set machines.train.spot to false for machines that stay"
    return processes.summary_of(folder, ended, state == "SUCCEEDED")


class _Jobs:
    """The custom jobs of one run; the name that is shown is how one is found again."""

    def __init__(self, cluster: ClusterConfig, run_id: str) -> None:
        from google.cloud.aiplatform_v1 import JobServiceClient

        self._cluster, self._run = cluster, label(run_id)
        self._shown = f"train-{self._run}"
        self.attempts = _SPOT_ATTEMPTS if cluster.spot else _ATTEMPTS
        self._parent = f"projects/{cluster.project}/locations/{cluster.region}"
        with google_errors("Vertex AI custom jobs"):
            self._client: JobServiceClient = connect(
                JobServiceClient, f"{cluster.region}-aiplatform.googleapis.com", cluster.api_endpoint
            )

    def pause_s(self, attempt: int) -> float:
        """Seconds before the job that follows a lost one: where spot machines run out, they are out for a while."""
        first, most = _SPOT_PAUSES
        return self._cluster.poll_s * min(first * 2 ** (attempt - 1), most) if self._cluster.spot else 0.0

    def standing(self) -> str:
        """A job of this run that is under way or has succeeded; empty: none."""
        with google_errors("list the training jobs of Vertex AI"):
            listed = self._client.list_custom_jobs(
                {"parent": self._parent, "filter": f'display_name="{self._shown}"'}, **self._reading()
            )
            found = [job for job in listed if _state(job) not in _IN_VAIN]
        return str(found[0].name) if found else ""

    def submit(self, folder: Path) -> str:
        """Ask for the machines; the job's name."""
        from google.api_core.exceptions import GatewayTimeout, InternalServerError, RetryError

        nodes = self._cluster.nodes
        machines = f"{nodes} {'spot ' if self._cluster.spot else ''}machine{'' if nodes == 1 else 's'}"
        with google_errors(f"submit a training on {machines} to Vertex AI"):
            try:
                # 429 and 503 say that nothing was done; after any other broken answer the job may stand
                made = patience(self._cluster.request_timeout_s)(self._client.create_custom_job)(
                    parent=self._parent, custom_job=self._job(folder), timeout=self._cluster.request_timeout_s
                )
            except (OSError, GatewayTimeout, InternalServerError, RetryError):
                if not (name := self.standing()):
                    raise
                return name
        return str(made.name)

    def follow(self, name: str) -> tuple[str, str]:
        """Wait for a job's end, and end it where this process is told to end.

        Returns:
            How it ended, in words, and Vertex AI's name of that.
        """
        said = ""
        try:
            with sigterm_raises():
                while True:
                    with google_errors("ask Vertex AI about the training job"):
                        job = self._client.get_custom_job(name=name, **self._reading(_BLIND))
                    if (state := _state(job)) != said:
                        _log.warning("%s: %s", self._where(name), state)
                        said = state
                    if state in _OVER:
                        reason = f": {' '.join(job.error.message.split())}" if job.error.message else ""
                        return f"the training job {self._where(name)} {state}{reason}", state
                    time.sleep(self._cluster.poll_s)
        except (StageError, KeyboardInterrupt):
            self._cancel(name)
            raise

    def _cancel(self, name: str) -> None:
        """End a job that nobody waits for any more; one that has ended takes no harm."""
        try:
            with google_errors("cancel the training job"):
                self._client.cancel_custom_job(name=name, timeout=self._cluster.request_timeout_s)
        except StageError as error:
            _log.warning("%s may go on: %s", self._where(name), error)

    def _job(self, folder: Path) -> "CustomJob":
        """One machine in the first pool, which leads, and the others, where there are some, in the second."""
        from google.cloud import aiplatform_v1 as vertex

        cluster = self._cluster
        machine = vertex.MachineSpec(machine_type=cluster.machine_type)
        if cluster.accelerator_count:
            machine.accelerator_type = vertex.AcceleratorType.__members__[cluster.accelerator]
            machine.accelerator_count = cluster.accelerator_count
        container = vertex.ContainerSpec(
            image_uri=cluster.image,
            command=["python", "-m", "components.train.nodes"],
            args=[str(folder), *([ONE] if cluster.nodes == 1 else [])],
        )
        pools = [
            vertex.WorkerPoolSpec(machine_spec=machine, replica_count=count, container_spec=container)
            for count in (1, cluster.nodes - 1)
            if count
        ]
        # one machine that went away starts all again, and the checkpoints say from where
        kinds = vertex.Scheduling.Strategy
        kind = kinds.SPOT if cluster.spot else kinds.STRATEGY_UNSPECIFIED
        scheduling = vertex.Scheduling(strategy=kind, restart_job_on_worker_restart=True)
        return vertex.CustomJob(
            display_name=self._shown,
            labels={**cluster.labels, _RUN: self._run},
            job_spec=vertex.CustomJobSpec(
                worker_pool_specs=pools,
                scheduling=scheduling,
                service_account=cluster.service_account,
                network=cluster.network,
            ),
        )

    def _reading(self, times: int = 1) -> dict[str, Any]:
        timeout_s = self._cluster.request_timeout_s
        return {"retry": reading(times * timeout_s), "timeout": timeout_s}

    def _where(self, name: str) -> str:
        return f"{self._cluster.region}/{name.rpartition('/')[2]}"


def _state(job: "CustomJob") -> str:
    return str(job.state.name).removeprefix("JOB_STATE_")
