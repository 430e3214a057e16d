"""The notebook: executed on the sample made small, shipped with what a small run showed, no logic of its own."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.generate.notebook import SMALL as KEPT_RUN
from infra.notebook_types import code
from serving.detector.bundle import verify
from tests.e2e.conftest import ROOT, SMALL
from tests.fakes.gcs import FakeGcs

NOTEBOOK = ROOT / "notebooks" / "train_colab.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    document = json.loads(NOTEBOOK.read_text())
    return [cell for cell in document["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_it_is_shipped_with_what_one_small_run_showed() -> None:
    written = cells("code")
    assert len(written) > 5
    counts = [cell["execution_count"] for cell in written]
    assert counts == list(range(counts[0], counts[0] + len(written))), "every cell of one run, in order"
    outputs = [output for cell in written for output in cell["outputs"]]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert (kinds.count("image/svg+xml"), kinds.count("image/png"), kinds.count("text/html")) == (4, 1, 1)
    assert "error" not in {output["output_type"] for output in outputs}
    said = json.dumps(outputs)
    assert "| accuracy |" in said and "different test images" in said
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|usr|Users)/", said) == [], (
        "no place of the machine that ran it"
    )
    assert NOTEBOOK.stat().st_size < 600_000
    parameters = source(written[0])
    assert "settings = []" in parameters and 'profile = "sample"' in parameters, "those of a whole run"
    named = re.search(r"`settings = (\[.*?\])`", source(cells("markdown")[0]), re.DOTALL)
    assert named is not None and tuple(json.loads(" ".join(named[1].split()))) == KEPT_RUN


def test_it_defines_nothing() -> None:
    lines, places = code(NOTEBOOK)
    assert places[lines.index("import shutil")] == f"train_colab.ipynb, code cell {len(cells('code'))}, line 1"
    nodes = list(ast.walk(ast.parse("\n".join(lines))))
    assert [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)] == []
    imported = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
    assert {"components.train.stage", "components.evaluate.stage", "components.verify_data.importing"} <= imported
    libraries = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    assert libraries == {"os", "pyarrow.parquet", "shutil", "sys"}


@pytest.mark.system
@pytest.mark.slow
def test_it_runs_from_top_to_bottom_and_uploads_a_whole_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    settings = [f"{key}={value}" for key, value in SMALL.items()] + [f"paths.workspace={tmp_path / 'workspace'}"]
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\nsettings = {settings!r}\nupload_to = 'gs://models/from-notebook'"
    storage = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    try:
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    finally:
        storage.close()
    (bundle,) = tmp_path.glob("workspace/notebook/*/bundle")
    manifest = verify(bundle)
    place = f"models/from-notebook/{bundle.parent.name}"
    here = {f"{place}/{path.relative_to(bundle)}": path for path in bundle.rglob("*") if path.is_file()}
    assert storage.objects == {name: path.read_bytes() for name, path in here.items()}
    assert (bundle.parent / "bundle.zip").stat().st_size > 0
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] in ("display_data", "execute_result")
    ]
    assert sum("image/svg+xml" in data for data in shown) == 4
    assert sum("image/png" in data for data in shown) == 1
    said = "\n".join(data.get("text/markdown", "") for data in shown)
    assert "| accuracy |" in said
    assert "PASSED" in said or "REFUSED" in said
    assert manifest.architecture == SMALL["train.architecture"]
