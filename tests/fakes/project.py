"""What stands in the way of an apply beside grants: names that deleted things still keep, and organisation policies.

The words are Google's as its provider passes them on, written down from public reports, not met here.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.fakes.policy import Plan, RefusedError

KEPT_FOR = {
    "google_iam_workload_identity_pool": ("workload_identity_pool_id", "Requested entity already exists"),
    "google_iam_workload_identity_pool_provider": (
        "workload_identity_pool_provider_id",
        "Requested entity already exists",
    ),
    "google_sql_database_instance": (
        "name",
        "The Cloud SQL instance already exists. When you delete an instance, you can't reuse the name of the deleted "
        "instance until one week from the deletion date., instanceAlreadyExists",
    ),
}
"""Resource -> what names it, and how a deleted one's name is refused: pools for 30 days, databases for a week.

A deleted custom role is undeleted by the provider; accounts, secrets and buckets may be made anew at once.
"""


@dataclass
class Project:
    """A project that is not as empty as it looks."""

    deleted: set[str] = field(default_factory=set)
    """`TYPE NAME` of what was deleted lately."""
    constraints: set[str] = field(default_factory=set)
    """Organisation policies that hold, e.g. `iam.allowedPolicyMemberDomains`."""
    domain: str = "example.test"
    """Whose members that policy allows."""

    def apply(self, plan: Plan) -> None:
        """Make everything.

        Raises:
            RefusedError: the first thing that may not be made.
        """
        for resource in plan.resources:
            kind, values = resource["type"], resource["values"]
            if kind in KEPT_FOR and f"{kind} {values[KEPT_FOR[kind][0]]}" in self.deleted:
                raise RefusedError(409, f"Error: Error creating {resource['address']}: Error 409: {KEPT_FOR[kind][1]}")
            if kind == "google_service_account_key" and "iam.disableServiceAccountKeyCreation" in self.constraints:
                raise RefusedError(400, "Key creation is not allowed on this service account.")
            if kind.endswith("_iam_member"):
                self._member(values)

    def _member(self, values: dict[str, Any]) -> None:
        if "iam.allowedPolicyMemberDomains" not in self.constraints:
            return
        kind, _, name = values["member"].partition(":")
        inside = kind in ("serviceAccount", "principalSet", "principal") or name.endswith(f"@{self.domain}")
        if not inside:
            raise RefusedError(
                400, "Error 400: One or more users named in the policy do not belong to a permitted customer."
            )
