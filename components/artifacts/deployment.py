"""The deployment artifact: what deploy did, for the command line and the run's record."""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

DEPLOYMENT_JSON: Final = "deployment.json"

Target = Literal["local", "cloud_run", "vertex_endpoint"]


class Deployment(BaseModel):
    """`deployment.json`: a version that passed its smoke test and is champion now."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = 1
    target: Target
    name: str
    version: str
    previous: str | None
    """Champion before, or None where there was none."""
    smoke: str
    """One line: what was replayed and how far the answers were off."""
    url: str = ""
    """Where the version answers; empty when nothing was left running."""
    pid: int | None = None
    """Process left running by a local deployment with `keep_running`."""


def write_deployment(folder: Path, deployment: Deployment) -> None:
    """Write `deployment.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEPLOYMENT_JSON).write_text(deployment.model_dump_json(indent=1) + "\n")
