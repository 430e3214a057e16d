"""Google that says no: who may do what in a project that Terraform has just made. Every fake asks here first.

Accounts, bindings, APIs and secrets are those of a plan (`tests/fakes/plans`, renewed by infra/ci/terraform_plans.py),
what a role permits is Google's own dated list (`roles.json`). Nothing is allowed that no binding allows.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
API_OF = {
    "google_artifact_registry_": "artifactregistry",
    "google_billing_budget": "billingbudgets",
    "google_cloud_run_": "run",
    "google_cloud_scheduler_": "cloudscheduler",
    "google_iam_": "iam",
    "google_logging_": "logging",
    "google_monitoring_": "monitoring",
    "google_project_iam_custom_role": "iam",
    "google_project_iam_member": "cloudresourcemanager",
    "google_pubsub_": "pubsub",
    "google_secret_manager_": "secretmanager",
    "google_service_account": "iam",
    "google_service_networking_": "servicenetworking",
    "google_sql_": "sqladmin",
    "google_storage_": "storage",
    "google_vertex_ai_": "aiplatform",
}
"""Beginning of a resource type -> the API that makes it."""


class RefusedError(Exception):
    """What Google answers instead."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Binding:
    """One grant of the plan."""

    address: str
    role: str
    member: str
    resource: str
    """`project`, or `KIND NAME` of what it is granted on."""
    condition: str = ""
    """Google's expression of when it holds; empty: always."""


@dataclass(frozen=True)
class Call:
    """A permission that somebody needed for something."""

    step: str
    account: str
    permission: str
    resource: str
    hard: bool = True
    """Whether the step fails without it; a soft one is said in a note."""


@cache
def document(environment: str) -> dict[str, Any]:
    """The plan of an environment as it is kept."""
    found: dict[str, Any] = json.loads((HERE / "plans" / f"{environment}.json").read_text())
    return found


@cache
def google_roles() -> dict[str, frozenset[str]]:
    """Google's predefined roles."""
    found = json.loads((HERE / "roles.json").read_text())["roles"]
    return {role: frozenset(permissions) for role, permissions in found.items()}


def plan_of(environment: str, without: str = "") -> "Plan":
    """A plan, whole or without one resource."""
    found = document(environment)
    return Plan([r for r in found["resources"] if r["address"] != without], found["waits_for"])


@dataclass
class Plan:
    """What Terraform makes; nothing changes it once it is made."""

    resources: list[dict[str, Any]]
    waits_for: dict[str, list[str]] = field(default_factory=dict)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Values of every resource of a type, each with its address."""
        return [{**r["values"], "address": r["address"]} for r in self.resources if r["type"] == kind]

    def account(self, name: str) -> str:
        """Member of the account that is called DEPLOYMENT-NAME; an address stands for itself.

        Raises:
            RefusedError: there is none.
        """
        if "@" in name:
            kind = "serviceAccount" if name.endswith(".gserviceaccount.com") else "user"
            return f"{kind}:{name}"
        for found in self.of("google_service_account"):
            if str(found["account_id"]).endswith(f"-{name}"):
                return str(found["member"])
        raise RefusedError(404, f"Unknown service account: {name}")

    @cached_property
    def apis(self) -> set[str]:
        """APIs that are enabled."""
        return {str(found["service"]).partition(".")[0] for found in self.of("google_project_service")}

    @cached_property
    def bindings(self) -> list[Binding]:
        """Every grant."""
        found = []
        for resource in self.resources:
            where = _WHERE.get(resource["type"])
            if where is not None:
                values = resource["values"]
                kind, name = where
                on = f"{kind} {str(values[name]).rpartition('/')[2]}".strip() if name else "project"
                when = " && ".join(f"({one['expression']})" for one in values.get("condition") or [])
                found.append(Binding(resource["address"], values["role"], values["member"], on, when))
        return found

    def permissions(self, role: str) -> frozenset[str]:
        """What a role permits."""
        if role.startswith("projects/"):
            return self._custom_roles.get(role, frozenset())
        return google_roles()[role]

    @cached_property
    def _custom_roles(self) -> dict[str, frozenset[str]]:
        found = self.of("google_project_iam_custom_role")
        return {role["name"]: frozenset(role.get("permissions", [])) for role in found}

    def order(self, address: str) -> set[str]:
        """Everything that is made before a resource, by the address of its block."""
        seen: set[str] = set()
        waiting = [re.sub(r"\[[^]]*\]", "", address)]
        while waiting:
            for before in self.waits_for.get(waiting.pop(), []):
                if before not in seen:
                    seen.add(before)
                    waiting.append(before)
        return seen


_WHERE = {
    "google_project_iam_member": ("", ""),
    "google_storage_bucket_iam_member": ("bucket", "bucket"),
    "google_secret_manager_secret_iam_member": ("secret", "secret_id"),
    "google_cloud_run_v2_service_iam_member": ("service", "name"),
    "google_artifact_registry_repository_iam_member": ("repository", "repository"),
    "google_service_account_iam_member": ("account", "service_account_id"),
    "google_pubsub_topic_iam_member": ("topic", "topic"),
}
"""What a resource of grants grants on: a kind, and the argument that names it."""


@dataclass
class Policy:
    """Asked by the fakes; remembers what was asked, so that each grant can be taken away and the same asked again."""

    plan: Plan
    project: str = "example-project"
    aliases: dict[str, str] = field(default_factory=dict)
    """Names that a fake has in place of the plan's."""
    step: str = ""
    caller: str = ""
    """Member that is signed in; empty: nobody. `owner` is the project's."""
    asked: list[Call] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    soft: frozenset[str] = frozenset()
    """Permissions whose refusal a step only reports."""

    def as_account(self, name: str, step: str) -> None:
        """Sign in as an account of the plan, or `owner`."""
        self.caller, self.step = name if name in ("owner", "") else self.plan.account(name), step

    def allows(self, member: str, permission: str, resource: str) -> bool:
        """Whether any grant on the resource, or on the project, gives the permission."""
        if member == "owner":
            return True
        for binding in self.plan.bindings:
            on = binding.resource in ("project", resource)
            given = binding.member in (member, "allUsers") and permission in self.plan.permissions(binding.role)
            if on and given and self._holds(binding, resource):
                return True
        return False

    def _holds(self, binding: Binding, resource: str) -> bool:
        """Whether a grant's condition is met now, by this resource; one that asks for anything else is not."""
        kind, _, name = resource.partition(" ")
        words = re.sub(r"timestamp\((['\"].*?['\"])\)", r"\1", binding.condition)
        known = {
            "request.time": repr(f"{self.now:%Y-%m-%dT%H:%M:%SZ}"),
            "resource.name": repr(name),
            "resource.type": repr(kind),
        }
        for asked, value in known.items():
            words = words.replace(asked, value)
        try:
            return not words or bool(cel(words, {}))
        except (AttributeError, KeyError, NameError, SyntaxError, TypeError):
            return False

    def require(self, permission: str, resource: str = "project", api: str = "", member: str = "") -> None:
        """Refuse as Google does what the caller may not.

        Args:
            permission: e.g. `run.services.get`.
            resource: `project` or `KIND NAME`.
            api: that must be enabled; the permission's own by default.
            member: who does it; the caller by default.

        Raises:
            RefusedError: nobody is signed in, the API is not enabled, or no grant gives the permission.
        """
        who = member or self.caller
        resource = self.real(resource)
        if not who:
            raise RefusedError(401, "Request is missing required authentication credential.")
        service = api or permission.partition(".")[0]
        if service not in self.plan.apis and service != "resourcemanager":
            raise RefusedError(
                403,
                f"{service}.googleapis.com has not been used in project {self.project} before or it is disabled. "
                "Enable it, then retry.",
            )
        if who != "owner":
            self.asked.append(Call(self.step, who, permission, resource, permission not in self.soft))
        if not self.allows(who, permission, resource):
            raise RefusedError(403, f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).")

    def real(self, resource: str) -> str:
        """A resource by the plan's name of it."""
        kind, _, name = resource.partition(" ")
        return f"{kind} {self.aliases.get(name, name)}".strip()

    def version_of(self, secret: str) -> None:
        """Refuse a secret that Terraform makes without a version, or with one that is switched off.

        Raises:
            RefusedError: 404 and 400, as Secret Manager words it.
        """
        made = self.plan.of("google_secret_manager_secret_version")
        versions = [v for v in made if str(v["secret"]).rpartition("/")[2] == self.aliases.get(secret, secret)]
        name = f"projects/{self.project}/secrets/{secret}/versions"
        if not versions:
            raise RefusedError(404, f"Secret Version [{name}/latest] not found.")
        # the latest is the one that was made last, whatever became of it
        if versions[-1].get("enabled") is False:
            raise RefusedError(400, f"Secret Version [{name}/{len(versions)}] is in DISABLED state.")

    def sign_in(self, claims: dict[str, Any], account: str) -> None:
        """GitHub's token for an account's: the provider's condition, its mapping, then the account's own grant.

        Raises:
            RefusedError: as STS and IAM credentials refuse.
        """
        provider = self.plan.of("google_iam_workload_identity_pool_provider")[0]
        try:
            if not cel(provider["attribute_condition"], claims):
                raise RefusedError(401, "The given credential is rejected by the attribute condition.")
            mapped = {name: str(cel(rule, claims)) for name, rule in provider["attribute_mapping"].items()}
        except KeyError as error:
            raise RefusedError(400, f"The mapped attribute needs the claim {error}, which the token lacks.") from error
        pool = f"iam.googleapis.com/{self.plan.of('google_iam_workload_identity_pool')[0]['name']!s}"
        who = [f"principal://{pool}/subject/{mapped['google.subject']}"]
        who += [f"principalSet://{pool}/{name}/{value}" for name, value in mapped.items() if name != "google.subject"]
        member = self.plan.account(account)
        email = member.removeprefix("serviceAccount:")
        needed = "iam.serviceAccounts.getAccessToken"
        granted = [
            binding
            for binding in self.plan.bindings
            if binding.resource == f"account {email}" and binding.member in who
            if needed in self.plan.permissions(binding.role)
        ]
        self.asked += [Call(self.step, name, needed, f"account {email}") for name in {b.member for b in granted}]
        if not granted:
            raise RefusedError(
                403, f"Permission '{needed}' denied on resource 'account {email}' (or it may not exist)."
            )
        self.caller = member


def cel(expression: str, claims: dict[str, Any]) -> Any:
    """The part of Google's expression language that attribute conditions and mappings use here."""
    ternary = re.fullmatch(r"(.+?) \? (.+?) : (.+)", expression)
    if ternary:
        return cel(ternary[2] if cel(ternary[1], claims) else ternary[3], claims)
    python = re.sub(r"has\(assertion\.(\w+)\)", r"('\1' in assertion)", expression)
    python = re.sub(r"assertion\.(\w+)", r"assertion['\1']", python)
    python = python.replace("&&", " and ").replace("||", " or ").replace(".startsWith(", ".startswith(")
    python = re.sub(r"!(?!=)", " not ", python)
    return eval(python, {"__builtins__": {}}, {"assertion": claims})


def api_of(kind: str) -> str:
    """The API that makes a resource type.

    Raises:
        KeyError: none is known for it; add it to API_OF.
    """
    found = [api for start, api in API_OF.items() if kind.startswith(start)]
    if not found:
        raise KeyError(kind)
    return found[-1] if kind.startswith("google_project_iam_member") else found[0]
