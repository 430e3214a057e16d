"""The server's settings, from the environment and from nowhere else."""

import os
import re
import tempfile
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.platform.account import home
from serving.platform.cores import usable_cores

MIB: Final = 1024 * 1024
ENVELOPE_BYTES: Final = 64 * 1024
"""Room in a body beside the files themselves: headers of parts and boundaries, or what JSON says of them."""
_HOST_NAME: Final = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")


class DecisionSettings(BaseSettings):
    """How verdicts become decisions, for the server and the command line alike."""

    model_config = SettingsConfigDict(
        env_prefix="",
        use_attribute_docstrings=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    decision_real_below: float | None = Field(None, ge=0.0, le=1.0)
    """`likely_real` below this probability of ai_generated; empty: the model's own threshold."""
    decision_ai_from: float | None = Field(None, ge=0.0, le=1.0)
    """`likely_ai` from this probability on; empty: the model's own."""
    c2pa_trust_lists: str = ""
    """Comma list of files with certificates (PEM) of C2PA signers to trust; none are shipped. Empty: no signer is."""

    @field_validator("decision_ai_from")
    @classmethod
    def _in_order(cls, ai_from: float | None, info: ValidationInfo) -> float | None:
        real_below = info.data.get("decision_real_below")
        if ai_from is not None and real_below is not None and ai_from < real_below:
            raise ValueError("DECISION_AI_FROM is below DECISION_REAL_BELOW: a photo cannot be likely both")
        return ai_from

    @property
    def trust_lists(self) -> list[Path]:
        """Files of certificates of C2PA signers."""
        return [Path(name.strip()) for name in self.c2pa_trust_lists.split(",") if name.strip()]


class Settings(DecisionSettings):
    """Every knob of the service; the environment variable is the field's name in capitals."""

    # --- where it listens ---------------------------------------------------------------------------------
    host: str = "127.0.0.1"
    """Loopback by default; the container image sets HOST=0.0.0.0."""
    port: int = Field(8080, ge=0, le=65535)
    """0 picks a free one. Vertex AI's AIP_HTTP_PORT wins where it is set."""
    root_path: str = ""
    """What a proxy puts in front of every path, as `/detector`; requests are right with it and without it."""
    aip_http_port: int | None = Field(None, ge=1, le=65535)
    aip_predict_route: str = "/vertex/predict"
    aip_health_route: str = "/vertex/health"
    workers: int = Field(1, ge=1, le=64)
    """Server processes; each has its own model and slots."""
    shutdown_timeout_s: int = Field(30, ge=1)
    """From SIGTERM to the end of the process at most; requests in flight may take 3 s less."""

    # --- the model ----------------------------------------------------------------------------------------
    model_uri: str = ""
    """A bundle folder, gs://bucket/folder, or models:/name@alias."""
    aip_storage_uri: str = ""
    """Vertex AI's copy of the model's folder; used where MODEL_URI is empty."""
    model_version: str = ""
    """What `model_version` says for a URI without a registry number; empty: 12 digits of the bundle's digest."""
    model_digest: str = ""
    """The digest the registry recorded for the model; another bundle at MODEL_URI is refused. Set by deployments."""
    mlflow_tracking_uri: str = ""
    model_cache_dir: Path = home() / ".cache" / "ai-product-photo-detector"
    model_refresh_s: float = Field(0.0, ge=0.0)
    """How often to look for a new champion; 0: never."""
    explain_warmup: bool = False
    """Load torch and Captum at the start instead of on the first explanation."""
    shadow_model_uri: str = ""
    """A challenger that judges a sample of the traffic off-path."""
    shadow_sample: float = Field(1.0, ge=0.0, le=1.0)

    # --- load ---------------------------------------------------------------------------------------------
    slots: int = Field(0, ge=0, le=256)
    """Single-thread engine slots in each process; 0: the cores divided by the processes."""
    queue_size: int = Field(0, ge=0)
    """Jobs that may wait for a slot; 0: four for each slot. Beyond it: 503."""
    request_timeout_s: float = Field(15.0, gt=0.0)
    """From a complete body to the answer."""
    decode_timeout_s: float = Field(4.0, gt=0.0)
    """Processor time one image may take. Beyond it: 422."""
    body_timeout_s: float = Field(30.0, gt=0.0)
    """In each such time, BODY_MIN_RATE times as much of a body has to come, or its end; a slow but steady one may."""
    body_min_rate: int = Field(16 * 1024, ge=1)
    """Bytes a second."""

    # --- limits on what comes in --------------------------------------------------------------------------
    max_connections: int = Field(1000, ge=1, le=60_000)
    """In each process; fewer where its limit on open files (ulimit -n) is lower. When all are taken, a newcomer gets
    the place of a waiting connection of the address that has the most."""
    header_timeout_s: float = Field(10.0, gt=0.0)
    """From a connection's beginning, or its last answer, to a whole request head."""
    max_file_bytes: int = Field(10 * MIB, ge=1)
    max_batch_bytes: int = Field(50 * MIB, ge=1)
    max_batch_files: int = Field(10, ge=1)
    max_buffered_bytes: int = Field(160 * MIB, ge=1, validate_default=True)
    """All bodies being received together, and twice what one client may hold; beyond it: 503."""

    url_fetch_hosts: str = ""
    """Comma list of hosts whose photos POST /predict fetches for `{"url": ...}`; `.shop.example` stands for all names
    below it. Empty: nothing is fetched."""
    url_fetch_private_hosts: str = ""
    """Those of them whose addresses may be private, such as your own image server; no other host may lead inside."""
    url_fetch_timeout_s: float = Field(8.0, gt=0.0, le=120.0)
    """For one address, redirects and the whole photo included."""
    url_fetch_places: int = Field(16, ge=1, le=256)
    """Addresses fetched at once in each process. Beyond it: 503."""

    # --- who may call, and how often ----------------------------------------------------------------------
    api_keys: SecretStr = SecretStr("")
    """Comma list. With keys but without REQUIRE_AUTH a key is optional and gives its holder an allowance of its own."""
    require_auth: bool = False
    """Refuse callers without a key; the server does not start with this and no key."""
    rate_limit_enabled: bool = True
    rate_limit_predict: str = "30/minute"
    rate_limit_batch: str = "5/minute"
    rate_limit_explain: str = "10/minute"
    rate_limit_storage_uri: str = "memory://"
    """memory:// counts in each process by itself; redis://host:6379/0 is shared by all processes and replicas."""
    trusted_proxies: int = Field(0, ge=0, le=16)
    """Proxies of ours in front, each appending to X-Forwarded-For: 1 on Cloud Run. 0: the header is ignored."""
    cors_origins: str = ""
    """Comma list of origins whose pages may call the API; * for any. Empty: none."""

    # --- what it says of itself ---------------------------------------------------------------------------
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    google_cloud_project: str = ""
    """Completes the trace names in the log lines."""
    prometheus_multiproc_dir: Path | None = None
    """Where several processes keep their metrics; set before the process starts."""

    # --- what it remembers to watch the model -------------------------------------------------------------
    drift_window: int = Field(1000, ge=50)
    """Predictions in a tested window and in the sliding view of /drift."""
    drift_min_n: int = Field(200, ge=50)
    drift_max_age_s: float = Field(86400.0, gt=0.0)
    """A window this old is tested with what it has, once that is DRIFT_MIN_N."""
    drift_alpha: float = Field(0.001, gt=0.0, lt=1.0)
    """Chance that a healthy window is called moved, over all signals together."""
    drift_min_effect: float = Field(0.05, ge=0.0, le=1.0)
    """Share of the traffic that must have moved, however significant it is."""
    drift_min_psi: float = Field(0.02, ge=0.0)
    drift_state_path: Path | None = None
    """SQLite file that keeps windows over restarts; not on a network file system. Empty: they end with the server."""
    feedback_dir: Path | None = None
    """Where POST /feedback keeps labels, append-only; empty: the route refuses."""
    feedback_keep_images: bool = False
    """Also keep the judged images themselves there, for the next training set: whole files as they came, with whatever
    metadata stands in them."""
    feedback_max_images: int = Field(10_000, ge=1)
    """Images kept at most. Where the next finds no room, the oldest without a label go."""
    feedback_max_image_bytes: int = Field(1024 * MIB, ge=1)
    """Bytes of kept images at most, in the same way."""
    feedback_retention_days: float = Field(30.0, gt=0.0)
    """How long a prediction waits for its label."""
    evidence_uri: str = ""
    """`gs://BUCKET[/FOLDER]` where several instances share closed drift windows, and labels are kept for the next
    training; empty: neither leaves this machine."""
    pipeline_runs_dir: Path | None = None
    """The pipeline's `workspace/runs`: lets /metrics tell of refused runs."""

    @field_validator("max_buffered_bytes")
    @classmethod
    def _holds_what_is_allowed(cls, buffered: int, info: ValidationInfo) -> int:
        """A body that may be sent has to fit into its sender's share, or it would be 503 for ever."""
        of_batch, of_file = info.data.get("max_batch_bytes"), info.data.get("max_file_bytes")
        if of_batch is None or of_file is None:
            return buffered  # one of them is refused itself
        largest = max(of_file, as_base64(of_batch)) + ENVELOPE_BYTES
        if buffered < 2 * largest:
            raise ValueError(
                f"{buffered:,} is too small: MAX_FILE_BYTES and MAX_BATCH_BYTES (in base64) allow bodies of up to "
                f"{largest:,} bytes, and one client may hold half of it; raise it to {2 * largest} or lower them"
            )
        return buffered

    @field_validator("aip_predict_route", "aip_health_route")
    @classmethod
    def _is_path(cls, route: str) -> str:
        if not route.startswith("/"):
            raise ValueError("a route starts with /")
        return route

    @field_validator("evidence_uri")
    @classmethod
    def _is_bucket(cls, uri: str) -> str:
        if uri and not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+(/.*)?", uri):
            raise ValueError("EVIDENCE_URI is gs://BUCKET or gs://BUCKET/FOLDER")
        return uri

    @field_validator("root_path")
    @classmethod
    def _is_prefix(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and not path.startswith("/"):
            raise ValueError("a root path starts with /")
        return path

    @field_validator("url_fetch_hosts", "url_fetch_private_hosts")
    @classmethod
    def _are_hosts(cls, value: str, info: ValidationInfo) -> str:
        hosts = [host.strip().lower() for host in value.split(",") if host.strip()]
        if wrong := [host for host in hosts if not _HOST_NAME.fullmatch(host)]:
            raise ValueError(f"{wrong[0][:100]!r} is no host name; name it as cdn.shop.example, or .shop.example")
        if info.field_name == "url_fetch_private_hosts" and (wide := [host for host in hosts if host[0] == "."]):
            raise ValueError(f"{wide[0]} stands for many hosts; name each host that may lead to a private address")
        return ",".join(hosts)

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def fetch_hosts(self) -> frozenset[str]:
        """Hosts whose photos are fetched; a name that begins with a dot stands for all below it."""
        return frozenset(self.url_fetch_hosts.split(",")) - {""}

    @property
    def fetch_private_hosts(self) -> frozenset[str]:
        """Hosts whose addresses may be private."""
        return frozenset(self.url_fetch_private_hosts.split(",")) - {""}

    @property
    def cors_allowed(self) -> list[str]:
        """Origins that may read the answers."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def listen_port(self) -> int:
        """The port to bind."""
        return self.port if self.aip_http_port is None else self.aip_http_port

    @property
    def champion_uri(self) -> str:
        """The model to serve."""
        return self.model_uri or self.aip_storage_uri

    @property
    def drift_state(self) -> Path | None:
        """The drift monitor's file; several processes need one to report one truth."""
        if self.drift_state_path is None and self.workers > 1 and self.prometheus_multiproc_dir is not None:
            return self.prometheus_multiproc_dir / "drift.sqlite"
        return self.drift_state_path

    @property
    def slots_per_process(self) -> int:
        """Engine slots in this process."""
        return self.slots or max(1, usable_cores() // self.workers)

    @property
    def queue_length(self) -> int:
        """Jobs that may wait in this process."""
        return self.queue_size or 4 * self.slots_per_process


def as_base64(size: int) -> int:
    """Bytes that so many take as base64, without what stands around them."""
    return size * 4 // 3


def share_metrics_between_processes() -> None:
    """Give the worker processes an empty folder for their metrics, before the metrics library loads.

    What an earlier server left there would be counted again, and its model shown as served.
    """
    folder = os.environ.setdefault(
        "PROMETHEUS_MULTIPROC_DIR", str(Path(tempfile.gettempdir()) / f"aidetect-{os.getpid()}")
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in Path(folder).glob("*.db"):
        file.unlink(missing_ok=True)
