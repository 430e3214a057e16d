"""Plans both environments and keeps what the tests read of it: resources, their order, and what the plan was made of.

    terraform_plans.py         writes tests/fakes/plans/{dev,prod}.json anew, where a .tf file changed
    terraform_plans.py again   applies prod, plays a release, plans once more; says what would change

The provider is infra/ci/google_provider.py on the schema that infra/ci/terraform.sh keeps in its cache.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "infra/terraform"
PLANS = ROOT / "tests/fakes/plans"
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))  # noqa: TID251 - a tool's own
CACHE = Path(os.environ.get("CI_TOOLS", HOME / "aidetect-ci")) / "terraform"  # noqa: TID251 - a tool's own
VARIABLES = {
    "project": "example-project",
    "github_repository": "example/ai-product-photo-detector",
    "github_repository_id": "123456789",
    "alert_emails": ["oncall@example.test"],
    "billing_account": "012345-6789AB-CDEF01",
    "operators": ["operator@example.test"],
    "mlflow_image": "registry.test/mlflow@sha256:" + "a" * 64,
    "retrain_image": "registry.test/pipeline@sha256:" + "b" * 64,
}
"""Everything that may be switched on is on: no grant may stay unseen."""


def made_of() -> str:
    """Digest of every .tf file and of the variables, by which a stale plan is known."""
    digest = hashlib.sha256(json.dumps(VARIABLES).encode())
    for path in sorted(SOURCE.rglob("*.tf")):
        if ".terraform" not in path.parts:
            digest.update(str(path.relative_to(SOURCE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Workspace:
    """A copy of the Terraform code whose state lies beside it."""

    def __init__(self, folder: Path, environment: str) -> None:
        """Copy the code and say where the provider is found."""
        shutil.copytree(SOURCE, folder / "tf", ignore=shutil.ignore_patterns(".terraform*", "*.tfvars", "backend.hcl"))
        self.root = folder / "tf/environments" / environment
        self.live = folder / "live.json"
        (self.root / "override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
        self.variables(**VARIABLES)
        host = next((CACHE / "mirror").iterdir()).name
        plugin = next((CACHE / "mirror").rglob("terraform-provider-google*"))
        mirrored = folder / "mirror" / plugin.relative_to(CACHE / "mirror")
        mirrored.parent.mkdir(parents=True)
        source = (ROOT / "infra/ci/google_provider.py").read_text()
        mirrored.write_text(f"#!{CACHE}/venv/bin/python\n{source}")
        mirrored.chmod(0o755)
        settings = folder / "terraformrc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{folder}/mirror" }}\n}}\n')
        self.environment = {
            **os.environ,  # noqa: TID251 - what Terraform inherits
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
            "GOOGLE_SCHEMA": str(CACHE / "google.json"),
            "GOOGLE_LIVE": str(self.live),
            "GOOGLE_NAME": f"{host}/hashicorp/google",
        }

    def variables(self, **values: Any) -> None:
        """Write terraform.tfvars."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        (self.root / "terraform.tfvars").write_text("\n".join(lines) + "\n")

    def __call__(self, *arguments: str) -> str:
        """One terraform command's output."""
        done = subprocess.run(
            ["terraform", *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"terraform {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr}")
        return done.stdout

    def plan(self) -> dict[str, Any]:
        """A plan as JSON."""
        self("plan", "-input=false", "-no-color", "-out=planned")
        document: dict[str, Any] = json.loads(self("show", "-json", "planned"))
        return document


def resources(module: dict[str, Any]) -> list[dict[str, Any]]:
    """Every planned resource, with the values that are known and not empty."""
    found = [
        {
            "address": resource["address"],
            "type": resource["type"],
            "values": {k: v for k, v in resource["values"].items() if v not in (None, [], {}, "")},
        }
        for resource in module.get("resources", [])
        if resource["mode"] == "managed"
    ]
    for child in module.get("child_modules", []):
        found += resources(child)
    return found


def _complete(planned: list[dict[str, Any]], workspace: Workspace) -> None:
    """Fill in the members of grants that are known once their project is looked at: Google's own agents."""
    unknown = {found["address"]: found["values"] for found in planned if _grants_nobody(found)}
    if unknown:
        workspace("apply", "-input=false", "-no-color", "-parallelism=1", "planned")
        made = resources(json.loads(workspace("show", "-json"))["values"]["root_module"])
        for found in made:
            if found["address"] in unknown:
                unknown[found["address"]]["member"] = found["values"]["member"]


def _grants_nobody(found: dict[str, Any]) -> bool:
    return found["type"].endswith("_iam_member") and "member" not in found["values"]


def renew() -> None:
    """Write the plans of both environments."""
    digest = made_of()
    PLANS.mkdir(exist_ok=True)
    for environment in ("dev", "prod"):
        target = PLANS / f"{environment}.json"
        if target.is_file() and json.loads(target.read_text())["made_of"] == digest:
            continue
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(Path(folder), environment)
            workspace("init", "-input=false", "-no-color")
            planned = resources(workspace.plan()["planned_values"]["root_module"])
            _complete(planned, workspace)
            waits: dict[str, list[str]] = {}
            for one, other in re.findall(r'^ *"([^"]+)" -> "([^"]+)";', workspace("graph"), re.MULTILINE):
                waits.setdefault(one, []).append(other)
        document = {"made_of": digest, "waits_for": waits, "resources": sorted(planned, key=lambda r: r["address"])}
        target.write_text(json.dumps(document, indent=0, sort_keys=True) + "\n")
        sys.stdout.write(f"wrote {target.relative_to(ROOT)}: {len(planned)} resources\n")


def again() -> None:
    """A second apply after a release: the image, the model and the traffic stay, a setting arrives."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), "prod")
        workspace("init", "-input=false", "-no-color")
        workspace("apply", "-input=false", "-no-color", "-auto-approve", "-parallelism=1")
        live = json.loads(workspace.live.read_text())
        service = next(
            v
            for k, v in live.items()
            if k.startswith("google_cloud_run_v2_service ") and v["name"] == "ai-product-photo-detector"
        )
        template = service["template"][0]
        serving = template["containers"][0]
        serving["image"] = "registry.test/serving@sha256:" + "1" * 64
        serving["env"].append({**serving["env"][0], "name": "MODEL_URI", "value": "gs://models/1"})
        template["labels"] = {"model-version": "1", "attempt": "a1b2c3"}
        service["traffic"][0]["tag"] = "candidate"
        workspace.live.write_text(json.dumps(live))
        told = {"nothing": _changes(workspace.plan())}
        workspace.variables(**VARIABLES, service_environment={"RATE_LIMIT_PREDICT": "60/minute"})
        told["a setting"] = _changes(workspace.plan())
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    if told["nothing"] or not told["a setting"] or any("image" in what for what in told["a setting"].values()):
        raise SystemExit("FAILED: a second apply must leave a release alone and bring a changed setting")


def _changes(plan: dict[str, Any]) -> dict[str, list[str]]:
    """Address -> the attributes that a plan would change."""
    return {
        change["address"]: sorted(
            name
            for name in {**(change["change"]["before"] or {}), **(change["change"]["after"] or {})}
            if (change["change"]["before"] or {}).get(name) != (change["change"]["after"] or {}).get(name)
        )
        for change in plan.get("resource_changes", [])
        if change["change"]["actions"] not in (["no-op"], ["read"])
    }


if __name__ == "__main__":
    again() if sys.argv[1:] == ["again"] else renew()
