"""The KFP face, run the way KFP's executor runs it."""

from pathlib import Path

import pytest
from kfp import dsl
from pydantic import ValidationError

from components.artifacts.dataset import Dataset
from components.verify_data.component import verify_data


def _artifacts(root: Path) -> dict[str, dsl.Artifact]:
    return {
        "dataset": dsl.Dataset(name="dataset", uri=str(root / "dataset")),
        "report": dsl.HTML(name="report", uri=str(root / "report.html")),
        "metrics": dsl.Metrics(name="metrics", uri=str(root / "metrics")),
    }


def test_the_component_packs_and_tells_its_figures(tmp_path: Path, folder: Path) -> None:
    outputs = _artifacts(tmp_path / "out")
    # KFP turns integers of dict parameters into floats
    verify_data.python_func(data_uri=str(folder), data_labels={}, config={"limit": 100.0}, data_state="s1", **outputs)
    summary = Dataset(Path(outputs["dataset"].path)).summary
    assert outputs["dataset"].metadata["fingerprint"] == summary.fingerprint
    assert outputs["dataset"].metadata["source_state"] == "s1"
    assert outputs["metrics"].metadata["rows"] == 224.0
    assert outputs["metrics"].metadata["rows_test"] == 100.0
    assert outputs["metrics"].metadata["corrupt"] == 0.0
    assert "<h1>Data report</h1>" in Path(outputs["report"].path).read_text()


def test_the_component_refuses_an_unknown_key(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValidationError, match="owner"):
        verify_data.python_func(
            data_uri=str(folder), data_labels={}, config={"owner": "me"}, data_state="", **_artifacts(tmp_path / "out")
        )
    assert not (tmp_path / "out" / "dataset").exists()
