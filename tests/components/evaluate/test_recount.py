"""An evaluation whose figures were edited before the gate: whichever it was, the verdicts give another one."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.evaluation import EVALUATION_JSON, PREDICTIONS_PARQUET
from components.evaluate.recount import check_figures, first_difference, made_again
from components.quality_gate.config import GateConfig
from components.quality_gate.stage import judge_folder
from serving.platform.errors import StageError
from tests.components.evaluate.conftest import Outcome

Document = dict[str, Any]
NOT_OF_VERDICTS = {
    *("latency_ms", "bundle_bytes", "schema_version", "outside", "run_id", "bundle_digest", "data_fingerprint"),
    *("test_fingerprint", "predictions_sha256", "robustness_note", "champion_note", "caveat"),
}
"""Names, notes, and what no verdict tells."""


@pytest.fixture
def folder(toy_outcome: Outcome, tmp_path: Path) -> Path:
    """A copy of an evaluation with a champion, unseen generators and corruptions."""
    for name in (EVALUATION_JSON, PREDICTIONS_PARQUET):
        shutil.copy(toy_outcome.folder / name, tmp_path / name)
    return tmp_path


def edit(folder: Path, change: Callable[[Document], object]) -> None:
    path = folder / EVALUATION_JSON
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def leaves(part: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, container, key) of every number in a document."""
    items = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in items:
        where = f"{name}.{key}" if isinstance(part, dict) else f"{name}[{key}]"
        if isinstance(value, dict | list):
            yield from leaves(value, where)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield where, part, key


def test_what_evaluate_wrote_is_believed(toy_outcome: Outcome, folder: Path) -> None:
    assert check_figures(folder) == toy_outcome.evaluation
    metadata = pq.read_schema(folder / PREDICTIONS_PARQUET).metadata
    assert json.loads(metadata[b"aidetect.drawn"]) == {
        "seed": 0,
        "bootstrap_draws": 200,
        "paired_draws": 500,
        "calibration_bins": 15,
        "slice_min_images": 20,
    }


def test_whichever_number_is_edited_the_verdicts_give_another(toy_outcome: Outcome) -> None:
    made = made_again(toy_outcome.folder, toy_outcome.evaluation)
    whole = json.loads((toy_outcome.folder / EVALUATION_JSON).read_text())
    assert whole.keys() - made.keys() == NOT_OF_VERDICTS
    document = {name: whole[name] for name in made}
    assert first_difference(made, document) is None
    edited = 0
    for name, part, key in leaves(document):
        if re.search(r"roc\[\d\d", name):  # one point of a curve is as good as another
            continue
        value = part[key]
        part[key] = value + 1 if isinstance(value, int) else value + 1e-4
        found = first_difference(made, document)
        assert found is not None and found[0] == name[1:]
        part[key] = value
        edited += 1
    assert edited > 500


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(champion=None), "champion nothing|champion None does not follow"),
        (lambda d: d.update(unseen_generator=None), "unseen_generator None does not follow"),
        (lambda d: d["robustness"].pop(0), "robustness: the number of entries"),
        (lambda d: d.pop("robustness"), "robustness: the number of entries"),
        (lambda d: d["test"]["slices"].pop(), "test.slices: the number of entries"),
        (lambda d: d["test"]["slices"][0].update(name="else"), "test.slices.0..name else does not follow"),
        (lambda d: d["champion"]["accuracy_difference"].update(low=None), "accuracy_difference.low None does not"),
        (lambda d: d["test"]["metrics"]["roc_auc"].update(value=0.99), "test.metrics.roc_auc.value 0.99 does not"),
        (lambda d: d["test"]["metrics"]["f1"].update(low=0.9), "test.metrics.f1.low 0.9 does not follow"),
        (lambda d: d["robustness"][0]["accuracy"].update(value=0.99), "robustness.0..accuracy.value 0.99 does not"),
        (lambda d: d.update(threshold=0.9), "threshold 0.9 does not follow"),
        (lambda d: d["test"]["metrics"].pop("ece"), "test.metrics.ece nothing does not follow"),
        (lambda d: d["test"]["metrics"].update(other={"value": 1.0, "low": None, "high": None}), "gives nothing"),
    ],
)
def test_what_was_taken_out_or_put_in_is_missed(change: Callable[[Document], object], said: str, folder: Path) -> None:
    edit(folder, change)
    with pytest.raises(StageError, match=said) as caught:
        judge_folder(folder, GateConfig())
    assert "\n" not in str(caught.value)


def test_a_text_that_is_named_in_every_row_is_weighed_before_it_is_written_out(folder: Path) -> None:
    path = folder / PREDICTIONS_PARQUET
    table = pq.read_table(path)
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array(["x" * 40_000_000]))
    at = table.column_names.index("generator")
    pq.write_table(table.set_column(at, "generator", bomb), path, compression="zstd")
    edit(folder, lambda document: document.update(predictions_sha256=sha256(path.read_bytes()).hexdigest()))
    before = pa.total_allocated_bytes()
    with pytest.raises(StageError, match="bytes of texts, which no verdicts have"):
        check_figures(folder)
    assert len(table) * 40_000_000 > 4_000_000_000 > 10 * (pa.default_memory_pool().max_memory() - before)
