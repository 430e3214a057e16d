"""What to grant where Google refused: the least role that has the permission named in its answer."""

import re
from typing import Final

_PERMISSION: Final = re.compile(r"[Pp]ermission '?([a-z]+(?:\.[A-Za-z]+){2})'? denied")
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
