"""Links lead somewhere, verbs and targets named in the text exist, the site builds strictly."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipelines.cli.app import app
from pipelines.config import load_config
from pipelines.cost import estimate
from tests.docs.commands import PAGES, commands
from tests.e2e.conftest import ROOT

README_LINES = 250
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
ALL = [*PAGES, *sorted((ROOT / "docs/reference").glob("*.md"))]


def slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", ALL, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        file = (page.parent / target).resolve() if target else page
        # the site is built of docs/ alone: a link that leaves it leads nowhere there
        leaves_the_site = page.is_relative_to(ROOT / "docs") and not file.is_relative_to(ROOT / "docs")
        if not file.exists() or leaves_the_site or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_named_as_code_exist(page: Path) -> None:
    roots = "|".join(
        ("pipelines", "components", "serving", "infra", "tests", "docs", "notebooks", r"data/sample", r"\.github")
    )
    named = re.findall(rf"`((?:{roots})/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def verbs() -> dict[tuple[str, ...], set[str]]:
    """Each verb with its options."""
    found: dict[tuple[str, ...], set[str]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        found[path] = {name for parameter in command.params for name in parameter.opts}
        for name, below in getattr(command, "commands", {}).items():
            walk(below, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_verbs_options_and_targets_named_exist(page: Path) -> None:
    known, problems = verbs(), []
    text = page.read_text()
    spoken: list[str] = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*spoken, *(command.text for command in commands(page))]:
        targets = re.match(r"make ([a-z][a-z-]*)$", line.split(" && ")[0])
        if targets and targets[1] not in TARGETS:
            problems.append(line)
        invocation = re.match(r"(?:\.venv/bin/)?aidetect (.+)", line)
        if invocation:
            words = [word for word in shlex.split(invocation[1].partition("|")[0]) if word != "…"]
            path: tuple[str, ...] = ()
            while words and (*path, words[0]) in known:
                path = (*path, words.pop(0))
            options = {word.partition("=")[0] for word in words if word.startswith("-")}
            if not path or not options <= known[path] | {"--help", "-h", "--debug"}:
                problems.append(line)
    assert problems == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_the_costs_in_the_readme_are_those_of_the_estimate() -> None:
    found = estimate(load_config("production", ["paths.workspace=workspace/none"], environ={}))
    run, serving, storage = (found.total(group) for group in ("run", "serving", "storage"))
    told = f"About {run:.2f} $ for a run, {serving:.0f} $ a month for one warm instance, {storage:.0f} $ for storage"
    assert told in " ".join((ROOT / "README.md").read_text().split())


def test_every_page_is_in_the_site() -> None:
    navigation = str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


@pytest.mark.system
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/reference/configuration/index.html").exists()
    assert not (tmp_path / "site/generate").exists()
