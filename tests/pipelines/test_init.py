"""`aidetect init` on a copy of the files it writes."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cli.app import run_app
from pipelines.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PROD = Path("infra/terraform/environments/prod")
READERS = ("notebooks/train_colab.ipynb", "mkdocs.yml", "README.md", "docs/index.md", "docs/OWN_PHOTOS.md")
OWNER = ("--repository", "me/detector", "--repository-id", "42")
ANSWERS = ("--project", "my-shop-42", "--region", "europe-west4", *OWNER)
AIDETECT = (sys.executable, "-c", "from pipelines.cli import main; main()")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of a fresh clone that name an owner."""
    for name in ("pipeline_config.yaml", *READERS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns(".terraform*", "*.tfvars", "backend.hcl")
    shutil.copytree(ROOT / "infra/terraform/environments", tmp_path / PROD.parent, ignore=ignored)
    return tmp_path


@dataclass(frozen=True)
class Done:
    """What a command line answered."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def init(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`aidetect init` in the project's folder, without a terminal."""
    monkeypatch.chdir(project)

    def run(*arguments: str) -> Done:
        code = run_app(["init", *arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


def contents(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()}


def test_every_place_names_the_new_owner_and_nothing_else_changes(project: Path, init: Callable[..., Done]) -> None:
    before = contents(project)
    done = init(*ANSWERS)
    assert done.returncode == 0, done.stderr
    after = contents(project)
    assert {name for name in after if after[name] != before.get(name)} == {
        "pipeline_config.yaml",
        *READERS,
        str(PROD / "terraform.tfvars"),
        str(PROD / "backend.hcl"),
    }
    for name in READERS:
        assert "github.com/me/detector" in after[name] and "github.com/OWNER/NAME" not in after[name], name
        assert len(after[name].splitlines()) == len(before[name].splitlines())
    notebook = json.loads(after["notebooks/train_colab.ipynb"])
    assert any('repository = "https://github.com/me/detector"' in "".join(cell["source"]) for cell in notebook["cells"])
    text = after["pipeline_config.yaml"]
    assert "your-project" not in text
    old, new = before["pipeline_config.yaml"].splitlines(), text.splitlines()
    comments = [line for line in old if "#" in line]
    assert comments and set(comments) <= set(new)
    assert text.partition("  production:")[0] == before["pipeline_config.yaml"].partition("  production:")[0]

    config = load_config("production", file=project / "pipeline_config.yaml", environ={})
    places = (config.vertex, config.register_, config.deploy)
    assert {(place.project, place.region) for place in places} == {("my-shop-42", "europe-west4")}
    buckets = {config.data.uri, config.vertex.bucket, config.register_.bucket, config.deploy.ledger_path}
    assert {uri.split("/")[2] for uri in buckets} == {
        f"my-shop-42-aidetect-{use}" for use in ("data", "models", "pipelines", "records")
    }
    assert all(
        image.startswith("europe-west4-docker.pkg.dev/my-shop-42/ai-product-photo-detector/")
        for image in (*config.images.model_dump().values(), config.serving_image)
    )
    variables = after[str(PROD / "terraform.tfvars")].splitlines()
    assert 'bucket_prefix        = "my-shop-42-aidetect"' in variables
    assert 'github_repository_id = "42"' in variables
    assert len({line.index("=") for line in variables}) == 1  # as `terraform fmt` wants them
    declared = after[str(PROD / "variables.tf")]
    assert all(f'variable "{line.split()[0]}"' in declared for line in variables)


def test_asked_again_it_changes_nothing(project: Path, init: Callable[..., Done]) -> None:
    init(*ANSWERS)
    before = contents(project)
    done = init(*ANSWERS)
    assert (done.returncode, done.stdout.strip()) == (0, "nothing to change")
    assert contents(project) == before


def test_another_owner_keeps_what_was_written_by_hand_but_no_foreign_digest(
    project: Path, init: Callable[..., Done]
) -> None:
    init(*ANSWERS)
    file = project / "pipeline_config.yaml"
    pushed = "train@sha256:" + "a" * 64
    file.write_text(file.read_text().replace("train@sha256:" + "0" * 64, pushed))
    variables = project / PROD / "terraform.tfvars"
    variables.write_text(variables.read_text() + '\nmodel_uri = "gs://x/y"\n')
    assert init(*ANSWERS).stdout.strip() == "nothing to change"
    assert pushed in file.read_text()

    done = init(*ANSWERS, "--project", "other-shop", "--bucket", "other-name")
    assert done.returncode == 0, done.stderr
    assert pushed not in file.read_text()
    assert "my-shop-42" not in file.read_text()
    text = variables.read_text()
    assert 'model_uri = "gs://x/y"' in text
    assert 'bucket_prefix        = "other-name"' in text
    assert text.count("bucket_prefix") == 1


def test_a_dry_run_shows_the_difference_and_writes_nothing(project: Path, init: Callable[..., Done]) -> None:
    before = contents(project)
    done = init(*ANSWERS, "--dry-run")
    assert done.returncode == 0
    assert "+      project: my-shop-42" in done.stdout
    assert "-      project: your-project" in done.stdout
    assert contents(project) == before


def test_the_dev_environment_leaves_the_configuration_alone(project: Path, init: Callable[..., Done]) -> None:
    before = contents(project)
    assert init(*ANSWERS, "--environment", "dev").returncode == 0
    after = contents(project)
    assert {name for name in after if after[name] != before.get(name)} == {
        str(PROD.parent / "dev" / name) for name in ("terraform.tfvars", "backend.hcl")
    }


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--project", "My Shop", "lower-case letters"),
        ("--project", "shop", "6 to 30"),
        ("--region", "europe-west4-a", "not a zone"),
        ("--bucket", "gs://photos", "without gs://"),
        ("--bucket", "goog-photos", "Google keeps"),
        ("--repository", "detector", "OWNER/NAME"),
        ("--repository", "", "--repository is missing"),
        ("--repository-id", "me/detector", "gh api repos/me/detector --jq .id"),
        ("--repository-id", "", "--repository-id is missing"),
    ],
)
def test_a_name_that_is_none_is_refused_in_one_line(
    project: Path, init: Callable[..., Done], option: str, value: str, words: str
) -> None:
    before = contents(project)
    done = init(*ANSWERS, option, value)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert contents(project) == before


def test_a_region_without_the_profile_s_accelerator_is_told_before_anything_is_made_there(
    project: Path, init: Callable[..., Done]
) -> None:
    assert init(*ANSWERS).stderr == ""
    told = init(*ANSWERS, "--region", "europe-north1")
    assert told.returncode == 0
    left, missing = told.stderr.splitlines()
    assert missing.startswith("note: Vertex AI has no NVIDIA_TESLA_T4 in europe-north1, so no run would train there")
    assert "(europe-west1, europe-west2, europe-west3, europe-west4)" in missing
    # nothing looks any more where the profile was before
    assert left == (
        "note: a schedule in europe-west4 of my-shop-42 goes on there; remove it: aidetect schedule delete "
        "--set vertex.project=my-shop-42 --set vertex.region=europe-west4"
    )
    assert init(*ANSWERS, "--region", "europe-north1").stderr.splitlines() == [missing]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: {}\nprofiles: {}\n", "no profile 'production'"),
        ("base: {\n", "no profile 'production'"),
        ("base: {}\nprofiles:\n  production:\n    dat: {}\n", "dat: unknown key"),
    ],
)
def test_a_configuration_that_would_not_hold_leaves_every_file(
    project: Path, init: Callable[..., Done], text: str, words: str
) -> None:
    (project / "pipeline_config.yaml").write_text(text)
    before = contents(project)
    done = init(*ANSWERS)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert contents(project) == before


def test_in_a_terminal_it_asks_and_offers_the_remote(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    remote = "git@github.com:me/my-detector.git"
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=project, check=True)
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*AIDETECT, "init"], cwd=project, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    os.close(terminal)
    os.write(main, b"asked-project\n\n\n\n123\n")
    said, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0, said
    assert "[asked-project-aidetect]" in said
    variables = (project / PROD / "terraform.tfvars").read_text()
    assert '"asked-project"' in variables
    assert '"europe-west1"' in variables
    assert '"me/my-detector"' in variables
