"""What `aidetect bootstrap` stands on: the place that `init` wrote, the three programs, the files it writes to."""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.platform.errors import BootstrapError, one_line
from serving.platform.grants import remedy

PROGRAMS: Final = ("gcloud", "terraform", "gh")
_ASK_S: Final = 120.0
_ACT_S: Final = 3 * 3600.0
"""Images and a database take their time."""
_ANSWER_BYTES: Final = 4_000_000
_FIXES: Final = (
    (
        r"do not belong to a permitted customer|allowedPolicyMemberDomains",
        "your organisation lets nobody outside in (iam.allowedPolicyMemberDomains): set public = false in the "
        "environment's main.tf, or have its administrator allow allUsers here",
    ),
    (
        r"(?i)requested bucket name is not available|bucket namespace is shared",
        "somebody else has a bucket of that name, and names are one for all of Google Cloud: aidetect init --bucket "
        "ANOTHER (asks for the rest again), then aidetect bootstrap",
    ),
    (
        r"Cloud SQL instance already exists",
        "a deleted database keeps its name for a week: wait, or point tracking.uri elsewhere and set mlflow = false",
    ),
    (
        r"(?is)workload_?identity_?pool.*already exists|already exists.*workload_?identity_?pool",
        "a deleted pool keeps its name for 30 days: gcloud iam workload-identity-pools undelete NAME "
        "--location=global, then terraform import it",
    ),
    (
        r"Key creation is not allowed|disableServiceAccountKeyCreation",
        "your organisation forbids keys of service accounts; nothing here needs one: sign in by "
        "gcloud auth application-default login",
    ),
    (
        r"(?s)Error acquiring the state lock.*?\bID:\s*([\w-]+)",
        "an apply that was cut short left it, or one is under way: when none is, terraform force-unlock {}, then "
        "aidetect bootstrap again",
    ),
)
"""What a program says, and what to do about it."""
_OPERATORS: Final = re.compile(r"^operators\s*=\s*\[([^\]]*)\]\n?", re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """What `aidetect init` wrote for one environment."""

    folder: Path
    """infra/terraform/environments/{dev,prod}"""
    project: str
    region: str
    bucket: str
    repository: str

    @property
    def images(self) -> str:
        """Repository of the images."""
        return f"{self.region}-docker.pkg.dev/{self.project}/ai-product-photo-detector"


@dataclass
class Programs:
    """Runs the three programs; every answer is bounded in time and size, every failure is one line."""

    say: Callable[[str], None]
    environment: dict[str, str] = field(default_factory=dict)

    def ask(self, *command: str) -> str | None:
        """Standard output of a question; None when it failed, which then means "not there"."""
        try:
            return self._run(command, _ASK_S)
        except BootstrapError:
            return None

    def act(self, *command: str) -> str:
        """Standard output of a command that changes something.

        Raises:
            BootstrapError: it failed; has the last thing it said.
        """
        self.say(f"  $ {' '.join(command)}")
        return self._run(command, _ACT_S)

    def _run(self, command: Sequence[str], timeout_s: float) -> str:
        try:
            done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise BootstrapError(f"{' '.join(command[:3])}: {one_line(error)}") from error
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip(" │╷╵")]
            telling = next((line for line in said if "rror" in line), said[-1] if said else "no word of why")
            fix = fix_of(done.stderr[-_ANSWER_BYTES:])
            raise BootstrapError(
                f"{' '.join(command[:4])} failed ({done.returncode}): {telling.strip(' │')[:300]}"
                + (f"; {fix}" if fix else "")
            )
        return done.stdout[:_ANSWER_BYTES]


def fix_of(said: str) -> str:
    """What to do about a refusal of Google's; empty where nothing is known."""
    found = ((re.search(pattern, said), fix) for pattern, fix in _FIXES)
    return next((fix.format(*match.groups()) for match, fix in found if match), "") or remedy(said)


def read_place(folder: Path) -> Place:
    """What `aidetect init` wrote.

    Raises:
        BootstrapError: it did not run for this environment.
    """
    path = folder / "terraform.tfvars"
    names = ("project", "region", "bucket_prefix", "github_repository")
    values = tfvars(path)
    missing = [name for name in names if not values.get(name)]
    if missing:
        raise BootstrapError(f"{path}: {', '.join(missing)} missing; run first: aidetect init")
    return Place(folder, *(values[name] for name in names))


def tfvars(path: Path) -> dict[str, str]:
    """The plain texts in an HCL file of values."""
    try:
        return dict(re.findall(r'^(\w+)\s*=\s*"([^"\n]*)"', path.read_text(), re.MULTILINE))
    except FileNotFoundError:
        return {}


def missing_programs() -> list[str]:
    """Those of the three that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Profile:
    """Reads and writes the two files that hold what is found out: the configuration and terraform.tfvars."""

    def __init__(self, config_file: Path, values: Path, writes_config: bool) -> None:
        """Name them; a `dev` environment leaves the configuration, which follows prod, alone."""
        self._config, self._values, self.writes_config = config_file, values, writes_config

    def image(self, name: str) -> str:
        """The image in force; empty when it was never pushed."""
        if name == "mlflow" or not self.writes_config:
            return self.value("mlflow_image")
        text = str(self._production().get("images", {}).get(name, ""))
        return "" if text.endswith("0" * 64) else text

    def write_images(self, images: dict[str, str]) -> None:
        """Pin images by digest wherever one is named."""
        self.write_values(mlflow_image=images["mlflow"])
        if not self.writes_config:
            return

        def change(profile: Any) -> None:
            profile.setdefault("images", {}).update({n: i for n, i in images.items() if n != "mlflow"})
            if "serving_image" in profile.get("register", {}):
                profile["register"]["serving_image"] = images["serving"]

        self._change(change)

    @property
    def tracking(self) -> str:
        """MLflow's address in force."""
        return str((self._production().get("tracking") or {}).get("uri", ""))

    def write_tracking(self, uri: str) -> None:
        """Name MLflow's address."""
        self._change(lambda profile: profile.setdefault("tracking", {}).update(uri=uri))

    def value(self, name: str) -> str:
        """One value of terraform.tfvars."""
        return tfvars(self._values).get(name, "")

    @property
    def operators(self) -> list[str]:
        """Addresses of those who may promote by hand."""
        text = self._values.read_text() if self._values.is_file() else ""
        found = _OPERATORS.search(text)
        return re.findall(r'"([^"\n]+)"', found[1]) if found else []

    def add_operator(self, address: str) -> None:
        """Name another one."""
        named = ", ".join(f'"{name}"' for name in [*self.operators, address])
        text = _OPERATORS.sub("", self._values.read_text() if self._values.is_file() else "")
        self._values.write_text(f"{text.rstrip()}\noperators = [{named}]\n".lstrip())

    def write_values(self, **values: str) -> None:
        """Set values in terraform.tfvars; what else stands there stays."""
        text = self._values.read_text() if self._values.is_file() else ""
        for name, value in values.items():
            line = f'{name} = "{value}"'
            text, count = re.subn(rf'^{name}\s*=\s*"[^"\n]*"', line, text, count=1, flags=re.MULTILINE)
            if not count:
                text = f"{text.rstrip()}\n{line}\n" if text.strip() else f"{line}\n"
        self._values.write_text(text)

    def _production(self) -> Any:
        import yaml

        return yaml.safe_load(self._config.read_text())["profiles"]["production"]

    def _change(self, change: Callable[[Any], None]) -> None:
        from ruamel.yaml import YAML

        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = 4096  # an image reference stays on its line
        document = yaml.load(self._config.read_text())
        change(document["profiles"]["production"])
        beside = self._config.with_name(self._config.name + ".new")
        with beside.open("w") as file:
            yaml.dump(document, file)
        beside.replace(self._config)
