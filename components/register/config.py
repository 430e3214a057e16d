"""Knobs of register."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RegisterConfig(BaseModel):
    """Where a version is registered. MLflow always; Vertex Model Registry beside it when `vertex` is true."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    vertex: bool = False
    project: str = ""
    region: str = ""
    bucket: str = ""
    """`gs://bucket/folder` under which bundles are kept as `{model}/{digest}`."""
    serving_image: str = ""
    """Image of the serving container by digest, where it is not images.serving."""
    predict_route: str = "/vertex/predict"
    health_route: str = "/vertex/health"
    container_port: int = Field(default=8080, ge=1, le=65535)
    api_endpoint: str = ""
    """Another address of the Vertex AI API, e.g. a private endpoint; empty: Google's own."""
    timeout_s: float = Field(default=900.0, gt=0)
    """For one long-running operation."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    upload_timeout_s: float = Field(default=300.0, gt=0)
    """How long a file whose upload was cut off is tried again."""
    retry_timeout_s: float = Field(default=60.0, ge=0)
    """How long a reading call that met 429 or 503 is tried again."""

    @model_validator(mode="after")
    def _vertex_needs(self) -> "RegisterConfig":
        needed = {key: getattr(self, key) for key in ("project", "region", "bucket")}
        missing = [key for key, value in needed.items() if not value]
        if self.vertex and missing:
            raise ValueError(f"register.vertex needs register.{', register.'.join(missing)}")
        if self.bucket and not self.bucket.startswith("gs://"):
            raise ValueError(f"register.bucket must start with gs://, not {self.bucket!r}")
        return self
