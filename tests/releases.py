"""Evaluations, verdicts and registered versions of toy bundles, for tests of what comes after the gate."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.context import RunContext
from components.artifacts.evaluation import (
    EVALUATION_JSON,
    PREDICTIONS_PARQUET,
    Confusion,
    Evaluation,
    Metric,
    ScoreSet,
    Slice,
    write_evaluation,
)
from components.artifacts.model_version import RELEASE_JSON, ModelVersion
from components.artifacts.verdict import VERDICT_JSON, Check, GateVerdict
from components.quality_gate.config import GateConfig
from components.quality_gate.stage import judge_folder
from components.register.config import RegisterConfig
from components.register.stage import Passed, register
from serving.detector.bundle import MODEL_CARD, read_manifest

RELEASE_FILES = {EVALUATION_JSON, VERDICT_JSON, MODEL_CARD, RELEASE_JSON}
"""What stands in the folder `release` of a registered version."""
POLICY = GateConfig(min_test_images=100)
"""What the toy bundles are held against."""


def write_predictions(folder: Path, counts: Confusion) -> None:
    """A `predictions.parquet` whose verdicts have these counts."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = {
        ("real", "real"): counts.true_real,
        ("real", "ai_generated"): counts.false_ai,
        ("ai_generated", "real"): counts.false_real,
        ("ai_generated", "ai_generated"): counts.true_ai,
    }
    rows = [cell for cell, n in cells.items() for _ in range(n)]
    table = {"model": ["candidate"] * len(rows), "split": ["test"] * len(rows)}
    table |= {"label": [label for label, _ in rows], "prediction": [said for _, said in rows]}
    pq.write_table(pa.table(table), folder / PREDICTIONS_PARQUET)


def make_evaluation(folder: Path, digest: str, caveat: str = "") -> Path:
    """An evaluation folder whose figures follow from its confusion counts."""
    folder.mkdir(parents=True)
    counts = Confusion(true_real=93, false_ai=7, false_real=5, true_ai=95)
    accuracy = (counts.true_real + counts.true_ai) / 200
    f1 = 2 * counts.true_ai / (2 * counts.true_ai + counts.false_ai + counts.false_real)
    scores = ScoreSet(
        n=200,
        distinct=200,
        metrics={"accuracy": Metric(value=accuracy, low=0.90, high=0.97), "f1": Metric(value=f1, low=0.9, high=0.97)},
        confusion=counts,
        slices=[Slice(dimension="generator", name="ldm", n=50, accuracy=Metric(value=0.9, low=0.79, high=0.96))],
    )
    write_predictions(folder, counts)
    write_evaluation(
        folder,
        Evaluation(
            run_id="run-1",
            bundle_digest=digest,
            data_fingerprint="d" * 64,
            test_fingerprint="e" * 64,
            threshold=0.5,
            test=scores,
            caveat=caveat,
        ),
    )
    return folder


def make_verdict(folder: Path, digest: str, *, passed: bool = True) -> Path:
    """A verdict folder."""
    folder.mkdir(parents=True)
    word = "PASSED" if passed else "REFUSED"
    check = Check(
        name="accuracy",
        value=0.94,
        threshold=0.85,
        outcome="passed" if passed else "refused",
        sentence="accuracy 94.0 % (at least 85 %)",
    )
    verdict = GateVerdict(
        run_id="run-1",
        bundle_digest=digest,
        evaluation_sha256="e" * 64,
        policy={},
        passed=passed,
        headline=f"{word}: accuracy 94.0 %",
        checks=[check],
    )
    (folder / VERDICT_JSON).write_text(verdict.model_dump_json())
    return folder


def make_context(folder: Path, **changes: str) -> RunContext:
    """A run context on an sqlite registry in `folder`."""
    values = {
        "run_id": "run-1",
        "git_sha": "a" * 40,
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "artifact_root": (folder / "artifacts").as_uri(),
    }
    return RunContext.model_validate(values | changes)


def registered(folder: Path, bundle: Path, context: RunContext, config: RegisterConfig | None = None) -> ModelVersion:
    """Register `bundle` with an evaluation and a passing verdict of its own, made under `folder`."""
    evaluation = make_evaluation(folder / "evaluation", read_manifest(bundle).digest)
    passed = Passed(bundle, evaluation, judged(folder / "verdict", evaluation), POLICY)
    return register(passed, config or RegisterConfig(), context, folder / "model_version")


def judged(folder: Path, evaluation: Path, policy: GateConfig = POLICY) -> Path:
    """The folder of the gate's own verdict of an evaluation."""
    folder.mkdir(parents=True)
    (folder / VERDICT_JSON).write_text(judge_folder(evaluation, policy).model_dump_json())
    return folder
