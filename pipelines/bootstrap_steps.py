"""From `aidetect init` to a deployment that can run: what stands is looked at, what is missing is made, in order.

Everything goes through the programs that the guide names: gcloud, terraform and gh.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.bootstrap import Place, Profile, Programs
from serving.platform.errors import BootstrapError

IMAGES: Final = ("train", "pipeline", "serving", "mlflow")
ENVIRONMENTS: Final = ("production", "training", "preview")
"""GitHub's environments, by which Google knows a workflow's job."""
FIRST_APIS: Final = (
    "cloudresourcemanager.googleapis.com", "iam.googleapis.com", "serviceusage.googleapis.com",
    "storage.googleapis.com",
)  # fmt: skip
"""What Terraform itself asks before it can enable the others."""
GITHUB_SECRET: Final = "aidetect-github-token"  # noqa: S105 - its name in Secret Manager
TORCH_INDEXES: Final = {
    "TORCH_CPU_INDEX": "CPU builds, for the service",
    "TORCH_CUDA_INDEX": "CUDA 12.6 builds, which every driver since 525 runs, for training",
}
"""Repository variables with the package indexes that torch comes from; images.yml builds nothing without them."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Step:
    """One thing that has to stand."""

    what: str
    commands: tuple[str, ...]
    """What it runs, for the plan."""
    stands: Callable[[], bool]
    make: Callable[[], None]


def steps(place: Place, programs: Programs, profile: Profile, github_token: Path | None) -> list[Step]:
    """All that has to stand, in the order in which each finds what it needs.

    Args:
        place: where.
        programs: runs what asks and what makes.
        profile: the configuration that digests and addresses are written into.
        github_token: file with a token that may start workflows, for drift alarms; None: they only mail.
    """
    found = [
        # first: nothing that costs minutes or money before what only a person can say
        _torch_indexes(place, programs, profile),
        _state_bucket(place, programs),
        _first_apis(place, programs),
        _operator(programs, profile),
        _apply(place, programs, "everything that Terraform makes, on Google's sample until images are there", _made),
        _environments(place, programs),
        _variables(place, programs),
        _images(place, programs, profile),
    ]
    if github_token is not None:
        found.append(_github_token(place, programs, profile, github_token))
    return [
        *found,
        _apply(
            place, programs, "MLflow's server, and what else waited for its image", lambda p, a: _serves(p, a, profile)
        ),
        _tracking(place, programs, profile),
        _variables(place, programs),
    ]


def _torch_indexes(place: Place, programs: Programs, profile: Profile) -> Step:
    def missing() -> list[str]:
        listed = programs.ask("gh", "variable", "list", f"--repo={place.repository}", "--json=name,value") or "[]"
        try:
            there = {row["name"] for row in json.loads(listed) if row["value"]}
        except (ValueError, TypeError, KeyError):
            there = set()
        return [name for name in TORCH_INDEXES if name not in there]

    def command(name: str) -> str:
        return f"gh variable set {name} --repo={place.repository} --body=URL"

    def make() -> None:
        absent = missing()
        if absent:
            raise BootstrapError(
                f"{' and '.join(absent)}: not set, and the images take torch from there; run, with the address of "
                f"PyTorch's own index: {'; '.join(f'{command(name)} ({TORCH_INDEXES[name]})' for name in absent)}"
            )

    def stands() -> bool:
        return all(profile.image(name) for name in IMAGES) or not missing()

    what = "the package indexes that torch comes from, which you name"
    return Step(what, tuple(map(command, TORCH_INDEXES)), stands, make)


def _state_bucket(place: Place, programs: Programs) -> Step:
    uri = f"gs://{place.bucket}-terraform"
    create = (
        "gcloud", "storage", "buckets", "create", uri, f"--project={place.project}", f"--location={place.region}",
        "--uniform-bucket-level-access", "--public-access-prevention",
    )  # fmt: skip
    update = ("gcloud", "storage", "buckets", "update", uri, "--versioning")

    def make() -> None:
        programs.act(*create)
        programs.act(*update)

    def stands() -> bool:
        return programs.ask("gcloud", "storage", "buckets", "describe", uri, "--format=value(name)") is not None

    return Step(f"the bucket of Terraform's state, {uri}", (" ".join(create), " ".join(update)), stands, make)


def _first_apis(place: Place, programs: Programs) -> Step:
    command = ("gcloud", "services", "enable", *FIRST_APIS, f"--project={place.project}")

    def stands() -> bool:
        listed = programs.ask(
            "gcloud", "services", "list", "--enabled", f"--project={place.project}", "--format=value(config.name)"
        )
        return listed is not None and set(FIRST_APIS) <= set(listed.split())

    return Step(
        "the APIs that Terraform itself asks", (" ".join(command),), stands, lambda: _done(programs.act(*command))
    )


def _operator(programs: Programs, profile: Profile) -> Step:
    """Whoever makes the deployment promotes the first champion, and MLflow asks by name who may."""

    def account() -> str:
        return (programs.ask("gcloud", "config", "get-value", "account") or "").strip()

    def stands() -> bool:
        return account() in ("", "(unset)") or account() in profile.operators

    what = "you among the operators, who may look into MLflow and promote from their own machine"
    return Step(what, ("writes your address into terraform.tfvars",), stands, lambda: profile.add_operator(account()))


def _apply(place: Place, programs: Programs, what: str, stands: Callable[[Place, Programs], bool]) -> Step:
    at = f"-chdir={place.folder}"
    # by what the state holds, Google is not asked: an apply that was cut short left things to make, whatever it put out
    look = ("terraform", at, "plan", "-input=false", "-lock=false", "-refresh=false", "-detailed-exitcode")
    init = ("terraform", at, "init", "-input=false", "-backend-config=backend.hcl")
    apply = ("terraform", at, "apply", "-input=false", "-auto-approve")

    def make() -> None:
        programs.act(*init)
        programs.act(*apply)

    def whole() -> bool:
        return stands(place, programs) and programs.ask(*look) is not None

    return Step(what, (" ".join(init), " ".join(apply)), whole, make)


def _outputs(place: Place, programs: Programs) -> dict[str, Any]:
    text = programs.ask("terraform", f"-chdir={place.folder}", "output", "-json")
    try:
        return {name: output["value"] for name, output in json.loads(text or "{}").items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _made(place: Place, programs: Programs) -> bool:
    return bool((_outputs(place, programs).get("github_variables") or {}).get("GCP_WORKLOAD_IDENTITY_PROVIDER"))


def _serves(place: Place, programs: Programs, profile: Profile) -> bool:
    """Whether MLflow serves, on the image that is pinned."""
    return bool(profile.value("mlflow_image")) and bool(_outputs(place, programs).get("mlflow_uri"))


def _environments(place: Place, programs: Programs) -> Step:
    path = f"repos/{place.repository}/environments"
    commands = [("gh", "api", "--method", "PUT", f"{path}/{name}") for name in ENVIRONMENTS]

    def stands() -> bool:
        listed = programs.ask("gh", "api", path, "--jq", ".environments[].name")
        return listed is not None and set(ENVIRONMENTS) <= set(listed.split())

    def make() -> None:
        for command in commands:
            programs.act(*command)

    what = f"GitHub's environments {', '.join(ENVIRONMENTS)}, by which Google knows a job"
    return Step(what, tuple(map(" ".join, commands)), stands, make)


def _variables(place: Place, programs: Programs) -> Step:
    def missing() -> dict[str, str]:
        wanted = {k: str(v) for k, v in (_outputs(place, programs).get("github_variables") or {}).items() if v}
        listed = programs.ask("gh", "variable", "list", f"--repo={place.repository}", "--json=name,value") or "[]"
        try:
            there = {row["name"]: row["value"] for row in json.loads(listed)}
        except (ValueError, TypeError, KeyError):
            there = {}
        return {name: value for name, value in wanted.items() if there.get(name) != value}

    def make() -> None:
        for name, value in missing().items():
            programs.act("gh", "variable", "set", name, f"--repo={place.repository}", f"--body={value}")

    def stands() -> bool:
        return _made(place, programs) and not missing()

    shown = (
        f"gh variable set NAME --repo={place.repository} --body=VALUE, for each of terraform output github_variables"
    )
    return Step("the variables that the workflows read", (shown,), stands, make)


def _images(place: Place, programs: Programs, profile: Profile) -> Step:
    repository = f"--repo={place.repository}"
    build = ("gh", "workflow", "run", "images.yml", repository, "--field", f"targets={json.dumps(list(IMAGES))}")

    def newest(name: str) -> str:
        listed = programs.ask(
            "gcloud", "artifacts", "docker", "images", "list", f"{place.images}/{name}", "--sort-by=~UPDATE_TIME",
            "--limit=1", "--format=value(version)",
        )  # fmt: skip
        found = _DIGEST.search(listed or "")
        return f"{place.images}/{name}@{found[0]}" if found else ""

    def make() -> None:
        images = {name: newest(name) for name in IMAGES}
        if not all(images.values()):
            before = programs.ask(*_last_run(repository)) or ""
            programs.act(*build)
            programs.act("gh", "run", "watch", _begun(programs, repository, before), repository, "--exit-status")
            images = {name: newest(name) for name in IMAGES}
        absent = [name for name, image in images.items() if not image]
        if absent:
            raise BootstrapError(
                f"{place.images} holds no image {', '.join(absent)} after images.yml ran; see: gh run list {repository}"
            )
        profile.write_images(images)

    def stands() -> bool:
        return all(profile.image(name) for name in IMAGES)

    shown = (
        " ".join(build),
        "gh run watch RUN --exit-status",
        "writes the digests into the profile and terraform.tfvars",
    )
    return Step("the first images, built by images.yml and pinned by digest", shown, stands, make)


def _last_run(repository: str) -> tuple[str, ...]:
    return (
        "gh",
        "run",
        "list",
        "--workflow=images.yml",
        repository,
        "--limit=1",
        "--json=databaseId",
        "--jq=.[].databaseId",
    )


def _begun(programs: Programs, repository: str, before: str, tries: int = 30, pause_s: float = 2.0) -> str:
    """Number of the run that GitHub makes of a dispatch some seconds later."""
    for _ in range(tries):
        now = (programs.ask(*_last_run(repository)) or "").strip()
        if now and now != before.strip():
            return now
        time.sleep(pause_s)
    raise BootstrapError("GitHub made no run of images.yml; is the workflow on the default branch?")


def _github_token(place: Place, programs: Programs, profile: Profile, token: Path) -> Step:
    add = (
        "gcloud", "secrets", "versions", "add", GITHUB_SECRET, f"--project={place.project}", f"--data-file={token}",
    )  # fmt: skip

    def make() -> None:
        programs.act(*add)
        profile.write_values(retrain_image=profile.image("pipeline"))

    def stands() -> bool:
        # the secret has a first version that is none; the image is named once the token was added
        return bool(profile.value("retrain_image"))

    return Step("the token with which a drift alarm starts the training workflow", (" ".join(add),), stands, make)


def _tracking(place: Place, programs: Programs, profile: Profile) -> Step:
    def uri() -> str:
        return str(_outputs(place, programs).get("mlflow_uri") or "")

    def stands() -> bool:
        return not profile.writes_config or (bool(profile.tracking) and profile.tracking == uri())

    def make() -> None:
        if not uri():
            raise BootstrapError(f"terraform -chdir={place.folder} output has no mlflow_uri; is mlflow = false there?")
        profile.write_tracking(uri())

    return Step("tracking.uri of the profile", ("writes MLflow's address into the profile",), stands, make)


def _done(_: str) -> None:
    """What a command printed is nothing to keep."""
