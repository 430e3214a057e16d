"""A revision that Cloud Run made and could not start: what Google says of it, and what to do.

Google answers the update itself and lets its operation fail; users stay on the last revision that was ready. Its code
is that of what went wrong inside (404 for an image), so the words and the reasons of the service's conditions decide.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from components.deploy.config import DeployConfig
from components.deploy.traffic import short
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from google.api_core.operation import Operation
    from google.cloud.run_v2 import Condition, Service

_LONGEST: Final = 500
_FIXES: Final = (
    (
        re.compile(r"CONTAINER_MISSING|[Ii]mage '?\S+ (?:was )?not found"),
        "push the image, or name one that is there: aidetect deploy --image NAME@sha256:...",
    ),
    (
        re.compile(r"CONTAINER_PERMISSION|CONTAINER_IMAGE|permission to (?:read|access) the image"),
        "let Cloud Run's service agent read the repository: roles/artifactregistry.reader",
    ),
    (
        re.compile(r"SECRETS_ACCESS|Permission denied on secret|[Ss]ecret \S+ (?:was )?not found"),
        "grant the service's account roles/secretmanager.secretAccessor on that secret, and see that it has a version",
    ),
    (re.compile(r"[Qq]uota|ACTIVE_REVISION_LIMIT"), "ask for more quota, or lower the service's most instances"),
)


def is_ready(service: "Service") -> bool:
    """Whether the newest revision of a service came up."""
    return short(service.latest_created_revision) == short(service.latest_ready_revision)


def refuse_unready(service: "Service", config: DeployConfig) -> None:
    """Raise StageError while the newest revision did not come up: the next one would have what keeps it from that."""
    if service.latest_created_revision and not is_ready(service):
        raise StageError(
            f"the newest revision of Cloud Run service {config.service} is not ready, and a new one would be made like "
            f"it: {told(service, '', config)}; then deploy again, or replace its image: "
            "aidetect deploy --image NAME@sha256:..."
        )


def result(operation: "Operation", doing: str, get: "Callable[[], Service]", config: DeployConfig) -> "Service":
    """What an accepted update came to; it may end long after in a revision that does not come up.

    Args:
        operation: of the update.
        doing: what it does, for the error.
        get: asks for the service as it is now.
        config: how long to wait; names the project.

    Raises:
        StageError: the revision did not come up, in time or at all.
        GoogleAPICallError: the operation could not be asked about.
    """
    from google.api_core.exceptions import GoogleAPICallError

    try:
        # google's futures are untyped here
        updated: Service = operation.result(timeout=config.operation_timeout_s)  # type: ignore[no-untyped-call] # api-core is untyped here
    except TimeoutError as error:
        words = f"it has not come up within {config.operation_timeout_s:g} s"
        raise StageError(f"{doing}: {told(get(), words, config)}") from error
    except GoogleAPICallError as error:
        if not operation.operation.HasField("error"):
            raise
        raise StageError(f"{doing}: {told(get(), str(error.message or ''), config)}") from error
    return updated


def told(service: "Service", words: str, config: DeployConfig) -> str:
    """Why the newest revision is not ready, and the fix, in one line.

    Args:
        service: as it is after the failure.
        words: what the operation said; may be empty.
        config: names the project.
    """
    failed = [c for c in (service.terminal_condition, *service.conditions) if c.state.name == "CONDITION_FAILED"]
    reasons = [reason for condition in failed if (reason := _reason(condition))]
    said = " ".join((words or next((c.message for c in failed if c.message), "Cloud Run does not say why")).split())
    revision = short(service.latest_created_revision)
    fix = next((fix for pattern, fix in _FIXES if pattern.search(f"{' '.join(reasons)} {said}")), "")
    log = f"gcloud logging read 'resource.labels.revision_name=\"{revision}\"' --project {config.project} --limit 50"
    # the narrowest reason comes last: the service's own says no more than that a revision failed
    why = f"{reasons[-1]}: " if reasons else ""
    named = "" if revision in said else f"revision {revision}: "
    return f"{named}{why}{said[:_LONGEST].rstrip('. ')}; {fix or f'read its log: {log}'}"


def _reason(condition: "Condition") -> str:
    """Google's word for what went wrong; empty where it has none."""
    for reason in (condition.revision_reason, condition.reason):
        if reason.value:
            return str(reason.name)
    return ""
