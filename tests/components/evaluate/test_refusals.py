"""What the stage refuses: registries, champions, candidates and data it cannot trust."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper, numpy_helper

from components.artifacts.context import RunContext
from components.evaluate.config import EvaluateConfig
from serving.detector.bundle import MODEL, read_manifest, seal
from serving.platform.errors import StageError
from tests.bundles import jpeg
from tests.components.evaluate.conftest import make_rows, run
from tests.components.evaluate.packed import pack, row


def test_an_unreachable_registry_is_no_missing_champion(
    dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    context = RunContext(run_id="run-1", tracking_uri=f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'mlflow.db'}")
    (tmp_path / "no").write_text("a file where a folder is wanted")
    config = quick.model_copy(update={"champion_uri": EvaluateConfig().champion_uri})
    with pytest.raises(StageError, match="cannot be fetched"):
        run(toy_bundle, dataset, config, tmp_path, context)


def damaged_champion(folder: Path) -> Path:
    with (folder / MODEL).open("r+b") as file:
        file.write(b"X")
    return folder


def test_a_champion_that_cannot_be_scored_is_not_passed_over(
    dataset: Path, toy_bundle: Path, toy_copy: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    for champion, problem in (
        (damaged_champion(toy_copy), "cannot be scored: .*sha256"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(StageError, match=problem) as caught:
            run(toy_bundle, dataset, quick.model_copy(update={"champion_uri": str(champion)}), tmp_path)
        assert "set evaluate.champion_uri to ''" in str(caught.value)
    assert not (tmp_path / "evaluation").exists()


def test_a_tampered_candidate_is_refused(dataset: Path, toy_copy: Path, quick: EvaluateConfig, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"model\.onnx: sha256"):
        run(damaged_champion(toy_copy), dataset, quick, tmp_path)


def test_scores_that_are_not_numbers_are_refused(toy_copy: Path, quick: EvaluateConfig, tmp_path: Path) -> None:
    """A network that passes its golden examples and has no answer for nearly black pictures."""
    graph = onnx.load(toy_copy / MODEL)
    graph.graph.node[-1].output[0] = "sound"
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(0.08, np.float32), "least"))
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(0.0, np.float32), "nothing"))
    graph.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["pooled"], ["light"], axes=[1], keepdims=0),
            helper.make_node("Sub", ["light", "least"], ["margin"]),
            helper.make_node("Sqrt", ["margin"], ["root"]),
            helper.make_node("Mul", ["root", "nothing"], ["zero"]),
            helper.make_node("Add", ["sound", "zero"], ["logit"]),
        ]
    )
    onnx.save(graph, toy_copy / MODEL)
    manifest = read_manifest(toy_copy)
    fields = ("name", "architecture", "input_px", "decision", "golden", "provenance")
    seal(toy_copy, **{name: getattr(manifest, name) for name in fields})
    rows = make_rows(20, 1)
    rows[7] = row(jpeg(5), 1, "gan", "shop_1", "black.jpg")
    with pytest.raises(StageError, match=r"NaN or infinity on 1 of 20 images, first test/7 \(black\.jpg\)"):
        run(toy_copy, pack(tmp_path / "dark", {"test": rows}), quick, tmp_path)


def broken(tmp_path: Path, case: str) -> Path:
    rows: list[Any] = make_rows(20, 1)
    if case == "no test split":
        return pack(tmp_path / "d", {"train": rows})
    if case == "one class":
        return pack(tmp_path / "d", {"test": [r for r in rows if r["label"] == 1]})
    if case == "corrupt image":
        rows[13]["image"] = {"bytes": rows[13]["image"]["bytes"][:400], "path": "shop/torn.jpg"}
        return pack(tmp_path / "d", {"test": rows})
    folder = pack(tmp_path / "d", {"test": rows})
    if case == "not a dataset":
        (folder / "dataset.json").unlink()
    if case == "damaged summary":
        (folder / "dataset.json").write_text('{"splits": 3}')
    if case == "damaged parquet":
        (folder / "test.parquet").write_bytes(b"PAR1 nothing")
    if case == "lost column":
        pq.write_table(pa.table({"label": [0, 1]}), folder / "test.parquet")
    return folder


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("no test split", "no test split"),
        ("one class", "the test split has no real image"),
        ("corrupt image", r"test/13 \(torn\.jpg\): the JPEG data is damaged"),
        ("not a dataset", "not a dataset packed by verify_data"),
        ("damaged summary", "dataset|damaged"),
        ("damaged parquet", "the split test cannot be read"),
        ("lost column", "the split test cannot be read"),
    ],
)
def test_bad_data_stops_the_stage_in_one_line_and_leaves_nothing(
    case: str, problem: str, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=problem) as caught:
        run(toy_bundle, broken(tmp_path, case), quick, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluation").exists()
    assert not (tmp_path / "report.html").exists()
