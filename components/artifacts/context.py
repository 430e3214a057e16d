"""What every stage is told about the run it belongs to."""

from pydantic import BaseModel, ConfigDict


class RunContext(BaseModel):
    """Identity of a run and where its records go; set once at the pipeline's start, the same for all stages."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    run_id: str
    git_sha: str = "unknown"
    tracking_uri: str = ""
    """MLflow tracking and registry server, or sqlite URI; empty: nothing is tracked."""
    artifact_root: str = ""
    """Where a sqlite-backed MLflow keeps its files (a URI); empty: the server decides."""
    experiment: str = "ai-product-photo-detector"
    model_name: str = "ai-product-photo-detector"
    reason: str = "manual"
    """Why the run was started: manual, schedule, drift, dispatch."""
