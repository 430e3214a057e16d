"""References and the architecture picture say what the code says."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.generate.__main__ import DOCS, PAGES, outdated
from docs.generate.architecture import read_dag
from docs.generate.peers import KEPT
from pipelines.compile import compile_pipeline
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.registry import open_target
from serving.settings import Settings
from tests.bench.bench_peers import table
from tests.e2e.conftest import ROOT


def test_generated_files_are_current_and_one_that_is_not_is_named(tmp_path: Path) -> None:
    """Both in one look, for each makes all pages anew."""
    for name in PAGES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (DOCS / name).read_text()
        file.write_text(text.replace("train", "tram") if name == "reference/cli.md" else text)
    assert outdated(tmp_path) == ["reference/cli.md"], "run: make docs"


def test_the_dag_is_read_from_the_compiled_spec() -> None:
    dag = read_dag(compile_pipeline(open_target("local", PipelineConfig())))
    assert dag.stages == ("verify-data", "train", "evaluate", "quality-gate", "register", "deploy")
    assert dag.conditions == (("quality-gate.passed", ("deploy", "register")), ("auto_deploy", ("deploy",)))
    assert ("train", "register", "bundle") in {(e.source, e.target, e.artifact) for e in dag.edges}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("architecture.svg", {"verify_data", "train", "evaluate", "quality_gate", "register", "deploy"}),
        ("peers.svg", {"ours", "LitServe, 2 workers", "BentoML", "17.7", "68.5"}),
    ],
)
def test_a_picture_is_a_valid_one_that_loads_nothing(name: str, said: set[str]) -> None:
    text = (DOCS / name).read_text()
    root = ElementTree.fromstring(text)
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert said <= words
    assert re.findall(r"(?:href|src|url)\W+http", text) == []
    telephone, least = 390 - 32, min(map(int, re.findall(r'font-size="(\d+)"', text)))
    assert least * min(1, telephone / int(root.attrib["width"])) >= 11, "no text below 11 px at column width"
    assert "prefers-color-scheme: dark" in text and 'fill="#' not in text, "colours follow the reader's page"


def test_the_table_of_peers_is_of_the_run_that_is_drawn() -> None:
    assert table(json.loads(KEPT.read_text())) in (DOCS / "SPEED.md").read_text()


@pytest.mark.parametrize("model", [PipelineConfig, Settings])
def test_every_key_stands_in_the_reference(model: type) -> None:
    page = (DOCS / "reference/configuration.md").read_text()
    if model is Settings:
        assert [name for name in Settings.model_fields if f"| `{name.upper()}` |" not in page] == []
        return
    sections = [field.alias or name for name, field in PipelineConfig.model_fields.items()]
    assert [name for name in sections if f"### `{name}`" not in page] == []
    assert "| `augment.jpeg_p` |" in page
    assert str(ROOT) not in page
