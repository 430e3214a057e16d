"""Knobs of deploy, and what of this process's environment a local server inherits."""

import os
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.artifacts.deployment import Target
from serving.detector.tolerance import GOLDEN_TOLERANCE

_INHERITED: Final = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_INHERITED_PREFIXES: Final = (
    "LC_",
    "SSL_",
    "OMP_",
    "MKL_",
    "COVERAGE_",
    "MLFLOW_",
    "GOOGLE_",
    "AWS_",
    "STORAGE_EMULATOR",
)
_API_KEY: Final = "AIDETECT_API_KEY"


class DeployConfig(BaseModel):
    """Where a version is served, how it is tried first, and how it takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    target: Target = "local"
    ledger_path: str = "promotions.jsonl"
    """The append-only promotion ledger: a local file or a `gs://` object."""

    lock_wait_s: float = Field(default=1800.0, ge=0)
    """How long to wait for another promotion on this machine to end."""
    ready_timeout_s: float = Field(default=60.0, gt=0)
    """From the server's start to its first readiness."""
    smoke_timeout_s: float = Field(default=60.0, gt=0)
    """For the whole replay of the golden images."""
    request_timeout_s: float = Field(default=10.0, gt=0)
    stop_timeout_s: float = Field(default=15.0, gt=0)
    """From SIGTERM to the local server's exit."""
    traffic_settle_s: float = Field(default=30.0, ge=0)
    """How long another version may still answer at the shared address after all traffic was moved, which takes
    the cloud some seconds."""
    probability_tolerance: float = Field(default=GOLDEN_TOLERANCE, gt=0, le=0.05)
    """Largest accepted difference of a probability served from the one recorded in training."""

    canary_percent: int = Field(default=10, ge=0, le=99)
    """Share of users' traffic for the first hold; 0: none, all traffic moves after the smoke test."""
    canary_hold_s: float = Field(default=60.0, ge=0)

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """Local server's port; 0: a free one."""
    keep_running: bool = False
    """Leave the local server running after its promotion."""

    project: str = ""
    region: str = ""
    service: str = "ai-product-photo-detector"
    """Cloud Run service; Terraform makes it, this stage gives it revisions."""
    image: str = ""
    """Serving image by digest for the new revision; empty: the image that the service runs now."""
    first_image: str = ""
    """Serving image by digest for a service that still runs Terraform's sample; empty: images.serving, if pinned."""
    preview_service: str = ""
    """Cloud Run service of previews, so that they never touch the one with users; empty: `service`."""
    preview_key_secret: str = ""
    """Its API keys in Secret Manager, as `api_key_secret`; empty: `api_key_secret`."""
    api_key_secret: str = ""
    """Secret Manager secret with the service's API keys (id in `project`, or a full version name): the smoke test sends
    the first of them where AIDETECT_API_KEY is not set."""
    id_token: bool = False
    """Send a Google identity token with the smoke requests (a service that is not public)."""

    endpoint: str = ""
    """Vertex endpoint: number or full resource name."""
    smoke_endpoint: str = ""
    """A second endpoint without users: Vertex cannot address one model of a shared endpoint."""
    machine_type: str = "n1-standard-4"
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=2, ge=1)
    accelerator_type: str = ""
    accelerator_count: int = Field(default=0, ge=0)
    service_account: str = ""

    run_api_endpoint: str = ""
    """Another address of the Cloud Run API, e.g. a private endpoint; empty: Google's own."""
    vertex_api_endpoint: str = ""
    """The same for the Vertex AI API."""
    secrets_api_endpoint: str = ""
    """The same for the Secret Manager API."""
    operation_timeout_s: float = Field(default=1800.0, gt=0)
    """For one long-running operation of the cloud."""
    retry_timeout_s: float = Field(default=60.0, ge=0)
    """How long a call that met 429 or 503 is tried again."""

    @model_validator(mode="after")
    def _target_needs(self) -> "DeployConfig":
        needs = {
            "local": (),
            "cloud_run": ("project", "region", "service"),
            "vertex_endpoint": ("project", "region", "endpoint", "smoke_endpoint"),
        }[self.target]
        missing = [name for name in needs if not getattr(self, name)]
        if missing:
            raise ValueError(f"deploy.target {self.target} needs deploy.{', deploy.'.join(missing)}")
        if bool(self.accelerator_type) != bool(self.accelerator_count):
            raise ValueError("deploy.accelerator_type and deploy.accelerator_count belong together")
        if self.max_replicas < self.min_replicas:
            raise ValueError("deploy.max_replicas must not be below deploy.min_replicas")
        if self.target == "vertex_endpoint" and self.endpoint == self.smoke_endpoint:
            raise ValueError("deploy.smoke_endpoint must be another endpoint than deploy.endpoint, one without users")
        return self

    def for_previews(self) -> "DeployConfig":
        """The same, at the service that previews have to themselves."""
        return self.model_copy(
            update={
                "service": self.preview_service or self.service,
                "api_key_secret": self.preview_key_secret or self.api_key_secret,
            }
        )


def inherited_environment() -> dict[str, str]:
    """What a local server gets of this process's environment: the machine's settings, not another server's."""
    kept = ((k, v) for k, v in os.environ.items() if k in _INHERITED or k.startswith(_INHERITED_PREFIXES))
    return dict(kept)


def api_key() -> str:
    """Key for smoke requests to a service with authentication on, from `AIDETECT_API_KEY`; never part of a spec."""
    return os.environ.get(_API_KEY, "")
