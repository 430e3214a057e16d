"""Run the compiled spec on this machine: the file that would be submitted, under KFP's subprocess runner."""

from typing import TYPE_CHECKING, Any

from components.platform.database import ready
from pipelines.runs import RunRecord
from pipelines.settings.names import Stage
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.runner import run_spec
from pipelines.targets.scheduler import Scheduler
from pipelines.targets.target import Listener
from serving.platform.errors import RunError, ScheduleError

if TYPE_CHECKING:
    from kfp import dsl


class LocalTarget:
    """Processes of this machine, which end with the command that started them."""

    poll_s = 1.0
    caches = False

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config.on_this_disk()

    def place(self, stage: Stage, task: "dsl.PipelineTask") -> None:
        """Name the image that the stage would have elsewhere; here it runs in this environment, never from a cache."""
        task.set_container_image(self.config.images.of(stage)).set_caching_options(False)

    def prepare(self, spec: dict[str, Any], parameters: dict[str, Any], ask: bool = True) -> list[str]:
        """Make the registry before the first stage: two first runs at once must not both make its tables.

        Each stage looks at what else it needs, and costs nothing but time.
        """
        del spec, parameters
        if ask:
            ready(self.config.tracking_uri)
        return []

    def run(self, record: RunRecord, parameters: dict[str, Any], listener: Listener) -> None:
        """Run the spec in the record's folder to its end."""
        del parameters
        run_spec(record, listener)

    def refresh(self, record: RunRecord) -> list[str]:
        """Refuse: a run here ends with the command that started it.

        Raises:
            RunError: always.
        """
        raise _not_in_the_cloud(record)

    def cancel(self, record: RunRecord) -> None:
        """Refuse, with how a run here is stopped.

        Raises:
            RunError: always.
        """
        raise _not_in_the_cloud(record)

    def scheduler(self) -> Scheduler:
        """Refuse: nothing here starts runs by itself.

        Raises:
            ScheduleError: always.
        """
        raise ScheduleError("runs on this machine start on no schedule; set schedule.target to vertex or kubeflow")


def _not_in_the_cloud(record: RunRecord) -> RunError:
    return RunError(
        f"run {record.run_id} is not in the cloud (target {record.target}, {record.status}); "
        "a run on this machine is stopped with Ctrl-C where it runs"
    )
