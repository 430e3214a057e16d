"""The security settings, checked once and turned into what each route may cost and who may call it."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItem

from serving.http.security.keys import KeyRing
from serving.http.security.limits import Family, check_storage, read_limit
from serving.settings import ENVELOPE_BYTES, Settings, as_base64

OTHER_BODY_BYTES: Final = 64 * 1024
"""Cap of a body on a route that takes no image."""

PREFIXES: Final = ("", "/v1")
"""Where the routes of our own are served; both names of one share a bucket."""

INFER: Final = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")

OPEN: Final = frozenset({"/", "/privacy", "/health", "/healthz", "/readyz", "/startup", "/livez", "/metrics"})
"""Routes without a key: they say what this is, or serve probes and scrapers that cannot send one."""
_OPEN_BELOW: Final = ("/docs", "/redoc", "/openapi.json", "/v2/health/")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a request to one route may cost."""

    family: Family | None
    """Whose bucket it counts in; None: unlimited."""
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call what, how often, and with how much."""

    keys: KeyRing
    require_auth: bool
    limits: Mapping[Family, RateLimitItem]
    """Empty where RATE_LIMIT_ENABLED is false."""
    storage_uri: str
    rules: Mapping[str, Rule]
    """By route template; `other` for all that are not named."""
    open_routes: Set[str]
    other: Rule

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """Read and check the settings.

        Raises:
            SecurityConfigError: they would leave the server open, or cannot be read.
        """
        keys = KeyRing.parse(settings.api_keys.get_secret_value(), required=settings.require_auth)
        check_storage(settings.rate_limit_storage_uri)
        limits = _limits(settings)
        one_file = settings.max_file_bytes + ENVELOPE_BYTES
        base64_batch = as_base64(settings.max_batch_bytes) + ENVELOPE_BYTES
        of_uploads = {
            "/predict": Rule("predict", one_file),
            "/predict/batch": Rule("batch", settings.max_batch_bytes + ENVELOPE_BYTES),
            "/predict/explain": Rule("explain", one_file),
            "/predict/compare": Rule("compare", one_file),
        }
        # Vertex AI is the only caller of its container and has its own quotas; elsewhere this route counts as a batch
        on_vertex = settings.aip_http_port is not None
        rules = {
            **{prefix + route: rule for prefix in PREFIXES for route, rule in of_uploads.items()},
            **dict.fromkeys(INFER, Rule("batch", base64_batch)),
            # as it is spelt: Vertex AI's own default begins with /v1 too
            settings.aip_predict_route: Rule(None if on_vertex else "batch", base64_batch),
        }
        return cls(
            keys=keys,
            require_auth=settings.require_auth,
            limits=limits if settings.rate_limit_enabled else {},
            storage_uri=settings.rate_limit_storage_uri,
            rules=rules,
            open_routes={prefix + route for prefix in PREFIXES for route in OPEN} | {settings.aip_health_route},
            other=Rule("other", OTHER_BODY_BYTES),
        )

    def rule(self, endpoint: str) -> Rule:
        """The rule of a route template."""
        return self.rules.get(endpoint, self.other)

    def needs_key(self, endpoint: str) -> bool:
        """Whether a caller of this route must show a key; what is not known to be open is closed."""
        return self.require_auth and endpoint not in self.open_routes and not endpoint.startswith(_OPEN_BELOW)


def _limits(settings: Settings) -> dict[Family, RateLimitItem]:
    predict = read_limit("RATE_LIMIT_PREDICT", settings.rate_limit_predict)
    explain = read_limit("RATE_LIMIT_EXPLAIN", settings.rate_limit_explain)
    return {
        "predict": predict,
        "batch": read_limit("RATE_LIMIT_BATCH", settings.rate_limit_batch),
        "explain": explain,
        "compare": explain,
        "other": predict,
    }
