"""What each role may ask of an MLflow server: an allow-list; what stands on none is refused to all but `deploy`.

read      looks at runs, versions and files
write     and records runs and makes versions; moves no alias, changes and deletes nothing that stands
register  and aliases a version `challenger`, adds to a version the two addresses that register finds out late, and
          takes off the mark of an unfinished one
deploy    everything else too: `champion`, tags, deletions
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Role = Literal["read", "write", "register", "deploy"]
"""Each may do what those before it may."""
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_PREFIX: Final = re.compile(r"/(?:ajax-)?api/[23]\.0/(?:preview/)?(?P<rest>mlflow(?:-artifacts)?/.+)")
_READ: Final = frozenset(
    {
        "mlflow/experiments/search", "mlflow/runs/search", "mlflow/registered-models/get-latest-versions",
        "mlflow/logged-models/search",
    }
)  # fmt: skip
"""Questions that MLflow puts as POST."""
_WRITE: Final = frozenset(
    {
        "mlflow/experiments/create", "mlflow/experiments/set-experiment-tag", "mlflow/runs/create",
        "mlflow/runs/update", "mlflow/runs/log-metric",
        "mlflow/runs/log-parameter", "mlflow/runs/log-batch", "mlflow/runs/log-inputs",
        "mlflow/runs/outputs", "mlflow/runs/log-model", "mlflow/runs/set-tag", "mlflow/logged-models",
        "mlflow/registered-models/create", "mlflow/model-versions/create",
    }
)  # fmt: skip
_FILES: Final = re.compile(r"mlflow-artifacts/(?:artifacts/.+|mpu/(?:create|complete)/.+)")
ALIAS: Final = "mlflow/registered-models/alias"
TAG: Final = "mlflow/model-versions/set-tag"
UNTAG: Final = "mlflow/model-versions/delete-tag"
CHALLENGER: Final = "challenger"
UNFINISHED: Final = "registering"
"""The tag of a version that is still being made: who registers takes it off (`serving.registry.UNFINISHED_TAG`)."""
LATE_TAGS: Final = frozenset({"bundle_uri", "vertex_resource"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as it is judged."""

    method: str
    path: str
    """Decoded, without the query."""

    @property
    def asks(self) -> str:
        """The route behind MLflow's prefixes; empty for what is none of its API."""
        found = _PREFIX.fullmatch(self.path)
        return found["rest"] if found else ""

    @property
    def body_counts(self) -> bool:
        """Whether the answer for `register` depends on the body."""
        return (self.method == "POST" and self.asks in (ALIAS, TAG)) or (self.method == "DELETE" and self.asks == UNTAG)


def least_role(call: Call) -> Role:
    """The weakest role that may make this call, by its route alone; `register` may still be refused by the body."""
    if call.method in ("GET", "HEAD", "OPTIONS"):
        return "read"
    if call.method == "POST" and call.asks in _READ:
        return "read"
    if call.method == "POST" and call.asks in _WRITE:
        return "write"
    if call.method in ("PUT", "POST") and _FILES.fullmatch(call.asks):
        return "write"
    return "register" if call.body_counts else "deploy"


def may(role: Role, call: Call, body: Any, standing: dict[str, str] | None = None) -> bool:
    """Whether a role may make a call.

    Args:
        role: of the caller.
        call: the request.
        body: the parsed body where `call.body_counts`, else None.
        standing: the tags that the version named in `body` has, where `call` sets one.
    """
    needed = least_role(call)
    if ROLES.index(role) < ROLES.index(needed):
        return False
    if role != "register" or not call.body_counts:
        return True
    if not isinstance(body, dict):
        return False
    if call.asks == ALIAS:
        return body.get("alias") == CHALLENGER
    if call.asks == UNTAG:
        return body.get("key") == UNFINISHED
    key, value = body.get("key"), body.get("value")
    # once written they stay: where a champion's files lie is nobody's to move afterwards
    return key in LATE_TAGS and (standing or {}).get(str(key), value) == value
