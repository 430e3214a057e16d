"""What every stage is told about the run it belongs to."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


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
    """Why the run was started: manual, schedule, drift, dispatch."""

    @classmethod
    def of(cls, document: Mapping[str, Any], job: str) -> Self:
        """The context of the run that `job` is; a run started by a schedule takes the job's name as its id.

        Args:
            document: the pipeline parameter `context`.
            job: what the target calls this run: one name for all of its stages, another for every run.
        """
        context = cls.model_validate(document)
        return context if context.run_id else context.model_copy(update={"run_id": job})
