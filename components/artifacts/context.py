"""What every stage is told about the run it belongs to."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from serving.platform.errors import StageError


class RunContext(BaseModel):
    """Identity of a run and where its records go; set once at the pipeline's start, the same for all stages."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    run_id: str
    """Empty in the parameters of a schedule, which are the same for every run that it starts."""
    git_sha: str = "unknown"
    tracking_uri: str = ""
    """MLflow tracking and registry server, or sqlite URI; empty: nothing is tracked."""
    artifact_root: str = ""
    """Where a sqlite-backed MLflow keeps its files (a URI); empty: the server decides."""
    experiment: str = "ai-product-photo-detector"
    model_name: str = "ai-product-photo-detector"
    reason: str = "manual"
    """Why the run was started: manual, schedule, drift, dispatch; empty for a stage that may answer for later runs."""
    job_prefix: str = ""
    """What the target's name of a run has before our own id of it."""

    @classmethod
    def of(cls, document: Mapping[str, Any], job: str, output_uri: str = "") -> Self:
        """The context of the run that `job` is; where the parameters name no run, its id comes from the job's name.

        Args:
            document: the pipeline parameter `context`.
            job: what the target calls this run: one name for all of its stages, another for every run.
            output_uri: where the stage writes an output; says the job's name where `job` is empty.

        Raises:
            StageError: neither says which run it is.
        """
        context = cls.model_validate(document)
        if context.run_id:
            return context
        job = job or job_of(output_uri)
        return context.model_copy(update={"run_id": job.removeprefix(context.job_prefix)})

    def lasting(self, job_prefix: str) -> Self:
        """The context without what differs from run to run: input of a stage that an earlier run may answer for.

        Args:
            job_prefix: what the target's name of a run has before our own id of it.
        """
        return self.model_copy(update={"run_id": "", "reason": "", "job_prefix": job_prefix})


def job_of(output_uri: str) -> str:
    """The target's own name of a run, from where one of its stages writes an output.

    Vertex AI makes every such address as `ROOT/{job}/{task}/{output}` (`gcsOutputDirectory` in its reference of
    PipelineJob). Unlike a parameter, the address is no part of its cache's key.

    Raises:
        StageError: the address is made otherwise.
    """
    parts = output_uri.rstrip("/").split("/")
    if len(parts) < 4 or not parts[-3]:
        raise StageError(f"{output_uri!r} does not say which run it is of; run with vertex.caching=false")
    return parts[-3]
