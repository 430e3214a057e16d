"""What to do where Google refused: the least role with the permission that it names, or what else is missing."""

import re
from typing import Final

_PERMISSION: Final = re.compile(r"[Pp]ermission '?([a-z]+(?:\.[A-Za-z]+){2})'? denied")
_DISABLED: Final = re.compile(
    r"(?:has not been used in project .*|is disabled.*|SERVICE_DISABLED.*)\b([a-z]+\.googleapis\.com)"
    r"|\b([a-z]+\.googleapis\.com)\b.*(?:has not been used in project|is disabled|SERVICE_DISABLED)",
    re.DOTALL,
)
"""Google names the API before or after it says so."""
_NO_VERSION: Final = re.compile(
    r"Secret Version \[projects/[^/\]]+/secrets/([^/\]]+)/versions/[^\]]+\] "
    r"(?:not found|is in (?:DESTROYED|DISABLED) state)"
)
_BILLING: Final = re.compile(
    r"(?i)BILLING_DISABLED|billing account [^.]*\b(?:disabled|closed)|requires billing|enable billing"
)
_ACCOUNT_OFF: Final = re.compile(
    r"(?i)service account\b[^.]{0,20}?(?:([\w-]+@[\w-]+\.iam\.gserviceaccount\.com)'? )?(?:is|has been|was) disabled"
    r"|\baccount disabled\b|SERVICE_ACCOUNT_DISABLED"
)
_CONSTRAINT: Final = re.compile(r"\bconstraints/([a-z]+(?:\.[A-Za-z]+)+)")
_ROLES: Final = (
    ("storage.objects.create", "roles/storage.objectCreator"),
    ("storage.objects.get", "roles/storage.objectViewer"),
    ("storage.objects.list", "roles/storage.objectViewer"),
    ("storage.objects.", "roles/storage.objectUser"),
    ("secretmanager.versions.access", "roles/secretmanager.secretAccessor"),
    ("artifactregistry.repositories.uploadArtifacts", "roles/artifactregistry.writer"),
    ("artifactregistry.", "roles/artifactregistry.reader"),
    ("iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser"),
    ("iam.serviceAccounts.get", "roles/iam.workloadIdentityUser"),
    ("run.routes.invoke", "roles/run.invoker"),
    ("run.services.", "roles/run.developer"),
    ("aiplatform.", "roles/aiplatform.user"),
    ("logging.logEntries.create", "roles/logging.logWriter"),
    ("monitoring.timeSeries.create", "roles/monitoring.metricWriter"),
    ("monitoring.timeSeries.list", "roles/monitoring.viewer"),
    ("pubsub.topics.publish", "roles/pubsub.publisher"),
    ("cloudsql.instances.", "roles/cloudsql.client"),
)
"""Beginning of a permission -> role, the first that fits; others are granted by a role of one's own."""


def to_grant(answer: str) -> str:
    """`grant ROLE to the calling account`, by Google's refusal; empty where it names no permission."""
    found = _PERMISSION.search(answer)
    if found is None:
        return ""
    role = next((role for start, role in _ROLES if found[1].startswith(start)), "")
    return f"grant {role or found[1]} to the account that calls (infra/terraform does)"


def remedy(answer: str) -> str:
    """What to grant, enable, add or ask for, by Google's refusal; empty where it does not say what it lacks."""
    if _BILLING.search(answer):
        return "the project has no billing account in force: gcloud billing projects link PROJECT --billing-account=ID"
    off = _ACCOUNT_OFF.search(answer)
    if off is not None:
        return f"gcloud iam service-accounts enable {off[1] or 'EMAIL'}, if it was not disabled on purpose"
    forbidden = _CONSTRAINT.search(answer)
    if forbidden is not None:
        return (
            f"a policy of your organisation forbids it (constraints/{forbidden[1]}): have its administrator make an "
            "exception for this project"
        )
    disabled = _DISABLED.search(answer)
    if disabled is not None:
        service = next(name for name in disabled.groups() if name)
        return f"gcloud services enable {service} (infra/terraform does), then wait some minutes"
    secret = _NO_VERSION.search(answer)
    if secret is not None:
        return f"gcloud secrets versions add {secret[1]} --data-file=FILE: the newest version is the one that is read"
    return to_grant(answer)
