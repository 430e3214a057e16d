"""`aidetect init`: makes the project one's own, in the files that name a Google Cloud project or a repository."""

import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from pipelines.cli.options import ConfigFile
from serving.platform.errors import InitError

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG_FILE: Final = "pipeline_config.yaml"
PROFILE: Final = "production"
TERRAFORM: Final = Path("infra/terraform/environments")
SERVICE: Final = "ai-product-photo-detector"
"""Name of the service and of the image repository, as in Terraform."""
ACCOUNTS: Final = "aidetect"
"""What Terraform's service accounts, and buckets without a prefix of their own, begin with."""

_READERS: Final = {
    Path("notebooks/train_colab.ipynb"): r'(repository = \\"https://github\.com/)[^"\\]+',
    Path("mkdocs.yml"): r"(?m)(^repo_url: https://github\.com/)\S+",
    Path("README.md"): r"(git clone https://github\.com/)\S+(?= detector\b)",
    Path("docs/index.md"): r"(git clone https://github\.com/)\S+(?= detector\b)",
    Path("docs/OWN_PHOTOS.md"): r"(git clone https://github\.com/)\S+(?= detector\b)",
}
"""Where a reader is told the repository, and before what it stands; what is not there is left out."""

_PROJECT: Final = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_BUCKET: Final = re.compile(r"[a-z0-9]([a-z0-9-]{1,50}[a-z0-9])")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]{1,100}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}")
_IMAGE: Final = re.compile(r"(?P<repository>.+)/(?P<name>[a-z-]+)@sha256:(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True)
class Owner:
    """Whose project it is.

    Raises:
        InitError: a name that is none; the message says what one looks like.
    """

    project: str
    region: str
    bucket: str
    repository: str
    repository_id: str

    def __post_init__(self) -> None:
        """Refuse names that Google Cloud or GitHub would refuse later."""
        _match(
            "--project", self.project, _PROJECT, "6 to 30 lower-case letters, digits and hyphens; not the display name"
        )
        _match("--region", self.region, _REGION, "a region such as europe-west1, not a zone or a multi-region")
        _match("--bucket", self.bucket, _BUCKET, "3 to 52 lower-case letters, digits and hyphens, without gs://")
        if self.bucket.startswith("goog") or "google" in self.bucket:
            raise InitError(f"--bucket {self.bucket!r}: Google keeps names with goog for itself; choose another")
        _match("--repository", self.repository, _REPOSITORY, "OWNER/NAME on GitHub")
        _match("--repository-id", self.repository_id, _NUMBER, f"its number: {_ask_github(self.repository)}")

    @property
    def images(self) -> str:
        """Repository of the images."""
        return f"{self.region}-docker.pkg.dev/{self.project}/{SERVICE}"

    def profile(self) -> dict[str, dict[str, str]]:
        """What the production profile says of this owner, by section."""
        place = {"project": self.project, "region": self.region}
        account = f"{ACCOUNTS}-pipeline@{self.project}.iam.gserviceaccount.com"
        return {
            "data": {"uri": f"gs://{self.bucket}-data/cifake"},
            "train": {"checkpoint_dir": f"gs://{self.bucket}-pipelines/checkpoints"},
            "vertex": {**place, "bucket": f"gs://{self.bucket}-pipelines", "service_account": account},
            "register": {**place, "bucket": f"gs://{self.bucket}-models/bundles"},
            "deploy": {**place, "ledger_path": f"gs://{self.bucket}-records/promotions.jsonl"},
            "retrain": {
                "state_path": f"gs://{self.bucket}-pipelines/retrain.jsonl",
                "feedback_path": f"gs://{self.bucket}-evidence/labels/",
            },
        }


Project = Annotated[str, typer.Option(help="Google Cloud project id.")]
Region = Annotated[str, typer.Option(help="Region of everything, e.g. europe-west1.")]
Bucket = Annotated[
    str,
    typer.Option(
        help=f"What the buckets -data, -models, -pipelines, -records begin with; default: PROJECT-{ACCOUNTS}."
    ),
]
Repository = Annotated[str, typer.Option(help="OWNER/NAME on GitHub; default: that of the remote origin.")]
RepositoryId = Annotated[
    str, typer.Option(help="Its number, by which Google knows whose workflows sign in; default: as `gh` tells it.")
]
Environment = Annotated[
    Literal["dev", "prod"],
    typer.Option(help="Terraform environment; each wants a project of its own. The configuration follows prod."),
]


def add_to(app: typer.Typer) -> None:
    """Register this module's verb."""
    app.command()(init)


def init(
    project: Project = "",
    region: Region = "",
    bucket: Bucket = "",
    repository: Repository = "",
    repository_id: RepositoryId = "",
    environment: Environment = "prod",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes and write nothing.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Make the project yours: writes project, region, buckets and repository wherever they are named.

    What is not given is asked for. Asked again with the same answers it changes nothing.
    """
    owner = _ask(project, region, bucket, repository, repository_id)
    changes = planned(owner, environment, config_file or Path(CONFIG_FILE))
    notes = [_left_behind(owner, config_file or Path(CONFIG_FILE))] if environment == "prod" else []
    if dry_run:
        for path, (before, after) in changes.items():
            lines = difflib.unified_diff(
                before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), str(path)
            )
            typer.echo("".join(lines), nl=False)
    else:
        _write({path: after for path, (_, after) in changes.items()})
        for path in changes:
            typer.echo(f"wrote {path}")
    if environment == "prod":
        notes.append(_not_offered(owner, config_file or Path(CONFIG_FILE)))
    for note in filter(None, notes):
        typer.echo(f"note: {note}", err=True)
    if not changes:
        typer.echo("nothing to change")
    elif not dry_run:
        typer.echo("next: docs/DEPLOYMENT.md, from “Google Cloud”")


def _left_behind(owner: Owner, config_file: Path) -> str:
    """What goes on where the profile was before, as nothing looks there any more; empty: it was nobody's, or here."""
    from pipelines.config import load_config
    from pipelines.doctor import PLACEHOLDER

    before = load_config(PROFILE, file=config_file, environ={}).vertex
    if before.project in ("", PLACEHOLDER) or (before.project, before.region) == (owner.project, owner.region):
        return ""
    return (
        f"a schedule in {before.region} of {before.project} goes on there; remove it: aidetect schedule delete "
        f"--set vertex.project={before.project} --set vertex.region={before.region}"
    )


def _not_offered(owner: Owner, config_file: Path) -> str:
    """What the profile trains on and the region has not, told before anything is made there; empty: nothing."""
    from pipelines.config import load_config
    from pipelines.preflight import ACCELERATOR_REGIONS

    accelerator = load_config(PROFILE, file=config_file, environ={}).machines.train.accelerator
    regions = ACCELERATOR_REGIONS.get(accelerator)
    if regions is None or owner.region in regions:
        return ""
    near = sorted(name for name in regions if name.partition("-")[0] == owner.region.partition("-")[0])
    return (
        f"Vertex AI has no {accelerator} in {owner.region}, so no run would train there; choose another --region "
        f"({', '.join(near or sorted(regions))}), or other machines.train in the profile {PROFILE}"
    )


def planned(owner: Owner, environment: str, config_file: Path) -> dict[Path, tuple[str, str]]:
    """Files that would change: path -> text before (empty for a new file) and after.

    Raises:
        InitError: the configuration has no production profile, or would not hold any more.
    """
    if not TERRAFORM.is_dir():
        raise InitError(f"{TERRAFORM}: no such folder; run from the project's folder")
    values = {
        "project": owner.project,
        "region": owner.region,
        "github_repository": owner.repository,
        "github_repository_id": owner.repository_id,
        "bucket_prefix": owner.bucket,
    }
    state = {"bucket": f"{owner.bucket}-terraform"}
    texts: dict[Path, Callable[[str], str]] = {
        TERRAFORM / environment / "terraform.tfvars": lambda text: _assign(text, values),
        TERRAFORM / environment / "backend.hcl": lambda text: _assign(text, state),
    }
    if environment == "prod":
        texts[config_file] = lambda text: _configuration(text, owner, config_file)
        texts |= {
            path: partial(_told, pattern, owner.repository) for path, pattern in _READERS.items() if path.is_file()
        }
    changes = {}
    for path, rewrite in texts.items():
        try:
            before = path.read_text()
        except FileNotFoundError as error:
            if path == config_file:
                raise InitError(f"{path}: no such file; run from the project's folder or pass --config") from error
            before = ""
        after = rewrite(before)
        if after != before:
            changes[path] = before, after
    return changes


def _told(pattern: str, repository: str, text: str) -> str:
    return re.sub(pattern, rf"\g<1>{repository}", text)


def _configuration(text: str, owner: Owner, path: Path) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # an image reference stays on its line
    try:
        document = yaml.load(text)
        profile: dict[str, Any] = document["profiles"][PROFILE]
    except (YAMLError, TypeError, KeyError) as error:
        raise InitError(f"{path}: no profile {PROFILE!r} to write to; start from the shipped file") from error
    for section, values in owner.profile().items():
        profile.setdefault(section, {}).update(values)
    images = profile.setdefault("images", {})
    for name in ("train", "pipeline", "serving"):
        images[name] = _moved(str(images.get(name, "")), owner.images, name)
    profile["register"].pop("serving_image", None)  # images.serving is the one place
    written = StringIO()
    yaml.dump(document, written)
    _check(written.getvalue())
    return written.getvalue()


def _moved(image: str, repository: str, name: str) -> str:
    # a digest says nothing in a repository it was never pushed to: there it becomes zeros, which preflight refuses
    found = _IMAGE.fullmatch(image)
    kept = found is not None and found["repository"] == repository and found["name"] == name
    return image if kept else f"{repository}/{name}@sha256:{'0' * 64}"


def _check(text: str) -> None:
    from pipelines.config import load_config

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline_config.yaml"
        file.write_text(text)
        load_config(PROFILE, file=file, environ={})


def _assign(text: str, values: Mapping[str, str]) -> str:
    """Set top-level `name = "value"` lines of an HCL file; what else stands there stays."""
    width = max(map(len, values))  # `terraform fmt` wants the equal signs of neighbours in one column
    missing = []
    for name, value in values.items():
        text, count = re.subn(rf'^({name}\s*=\s*)"[^"\n]*"', rf'\g<1>"{value}"', text, count=1, flags=re.MULTILINE)
        if not count:
            missing.append(f'{name:<{width}} = "{value}"\n')
    if text and missing:
        text = text.rstrip("\n") + "\n\n"
    return text + "".join(missing)


def _write(texts: Mapping[Path, str]) -> None:
    """All files or none: each is written beside its place first, and moved when all are."""
    staged: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            staged[path] = path.with_name(path.name + ".new")
            staged[path].write_text(text)
        for path, new in staged.items():
            new.replace(path)
    finally:
        for new in staged.values():
            new.unlink(missing_ok=True)


def _ask(project: str, region: str, bucket: str, repository: str, repository_id: str) -> Owner:
    project = project or _prompt("--project", "Google Cloud project id", "")
    region = region or _prompt("--region", "Region", "europe-west1")
    bucket = bucket or _prompt("--bucket", "Buckets begin with", f"{project}-{ACCOUNTS}", optional=True)
    repository = repository or _prompt("--repository", "GitHub repository (OWNER/NAME)", _origin())
    repository_id = repository_id or _prompt("--repository-id", "Number of that repository", _number(repository))
    return Owner(project, region, bucket, repository, repository_id)


def _prompt(option: str, question: str, default: str, optional: bool = False) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(question, default=default or None)).strip()
    if default and (optional or option.startswith("--repository")):
        return default
    raise InitError(f"{option} is missing; give it, or run in a terminal to be asked")


def _number(repository: str) -> str:
    """The repository's number as the GitHub command line tells it; nothing where it is not signed in."""
    if _REPOSITORY.fullmatch(repository) is None:
        return ""
    try:
        done = subprocess.run(
            ["gh", "api", f"repos/{repository}", "--jq", ".id"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):  # no such command on this machine, or no answer
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _ask_github(repository: str) -> str:
    return f"gh api repos/{repository} --jq .id"


def _origin() -> str:
    """OWNER/NAME of the remote `origin` when it is on GitHub, else nothing."""
    command = ["git", "config", "--get", "remote.origin.url"]
    try:
        url = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError:  # no git on this machine
        return ""
    found = re.search(r"github\.com[:/](?P<name>[^/]+/[^/]+?)(?:\.git)?$", url)
    return found["name"] if found else ""


def _match(option: str, value: str, pattern: re.Pattern[str], wanted: str) -> None:
    if pattern.fullmatch(value) is None:
        raise InitError(f"{option} {value!r}: write {wanted}")
