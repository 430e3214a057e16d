"""The stage through its front doors: the function, the command line, the KFP component."""

from math import nan
from pathlib import Path

import pytest
from kfp.dsl import Artifact, Markdown

from components.artifacts.context import RunContext
from components.artifacts.evaluation import EVALUATION_JSON, Evaluation, write_evaluation
from components.artifacts.verdict import VERDICT_MD, read_verdict
from components.quality_gate.component import quality_gate as component
from components.quality_gate.config import GateConfig
from components.quality_gate.stage import judge_folder, quality_gate
from pipelines.cli.app import run_app
from serving.platform.errors import StageError
from tests.components.quality_gate.evaluations import evaluation, metric, part, scores
from tests.releases import write_predictions

CONTEXT = RunContext(run_id="run-1")


def written(folder: Path, found: Evaluation) -> Path:
    write_predictions(folder, found.test.confusion)
    write_evaluation(folder, found)
    return folder


def test_the_verdict_is_written_as_json_and_as_one_markdown_text(tmp_path: Path) -> None:
    folder = written(tmp_path / "evaluation", evaluation(scores(slices=(part("source", "a|b", 0.5),))))
    policy = GateConfig(min_worst_slice_accuracy=0.8)
    verdict = quality_gate(folder, policy, CONTEXT, tmp_path / "verdict", tmp_path / "out" / "summary")
    assert read_verdict(tmp_path / "verdict") == verdict
    page = (tmp_path / "out" / "summary").read_text()
    assert page == (tmp_path / "verdict" / VERDICT_MD).read_text()
    assert page.startswith(f"# {verdict.headline}\n")
    assert "| accuracy | ✅ passed | accuracy 94.0 % (at least 85 %), 95 % CI 92.0-96.0 |" in page
    assert "| slice_accuracy | ❌ refused | accuracy on a\\|b 50.0 %" in page
    assert "- No champion yet." in page
    for check in verdict.checks:
        assert check.name in page


def test_a_verdict_without_notes_has_no_list(tmp_path: Path) -> None:
    folder = written(tmp_path / "evaluation", evaluation(champion_note=""))
    quality_gate(folder, GateConfig(), CONTEXT, tmp_path / "verdict", tmp_path / "summary")
    assert "\n- " not in (tmp_path / "summary").read_text()


def test_a_figure_that_is_not_a_number_survives_the_file_and_refuses(tmp_path: Path) -> None:
    folder = written(tmp_path / "evaluation", evaluation(scores(ece=metric(nan))))
    verdict = judge_folder(folder, GateConfig(max_ece=0.1))
    assert not verdict.passed
    assert "ECE not a number" in verdict.headline


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"no readable evaluation\.json"),
        ("{", "damaged or of another version"),
        ('{"run_id": "x"}', "bundle_digest: Field required"),
    ],
)
def test_an_unreadable_evaluation_is_one_line(content: str | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / EVALUATION_JSON).write_text(content)
    with pytest.raises(StageError, match=problem) as caught:
        quality_gate(tmp_path, GateConfig(), CONTEXT, tmp_path / "verdict", tmp_path / "summary")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "verdict").exists()
    assert not (tmp_path / "summary").exists()


@pytest.mark.parametrize(("floor", "passed"), [(0.85, True), (0.99, False)])
def test_the_component_returns_one_bare_bool(floor: float, passed: bool, tmp_path: Path) -> None:
    verdict = Artifact(uri=str(tmp_path / "verdict"))
    answer = component.python_func(
        evaluation=Artifact(uri=str(written(tmp_path / "evaluation", evaluation()))),
        config={"min_accuracy": floor, "min_test_images": 1000.0, "report_only": []},
        context={"run_id": "run-1"},
        job="",
        verdict=verdict,
        summary=Markdown(uri=str(tmp_path / "summary")),
    )
    assert answer is passed
    assert verdict.metadata["passed"] is passed
    assert verdict.metadata["headline"] == read_verdict(tmp_path / "verdict").headline
    assert component.component_spec.outputs["Output"].type == "Boolean"


def test_the_verdict_goes_to_the_run(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    context = RunContext(run_id="run-9", tracking_uri=uri, artifact_root=(tmp_path / "artifacts").as_uri())
    folder = written(tmp_path / "evaluation", evaluation())
    verdict = quality_gate(folder, GateConfig(min_accuracy=0.99), context, tmp_path / "verdict", tmp_path / "summary")
    quality_gate(folder, GateConfig(min_accuracy=0.99), context, tmp_path / "verdict", tmp_path / "summary")
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(context.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.run_id = 'run-9'")
    assert run.data.tags["gate"] == "refused"
    assert run.data.tags["gate.headline"] == verdict.headline
    assert run.data.metrics["gate/passed"] == 0.0
    assert {f.path for f in client.list_artifacts(run.info.run_id, "verdict")} == {
        "verdict/verdict.json",
        "verdict/verdict.md",
    }


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ([], 0, "PASSED: accuracy 94.0 %"),
        (["--set", "gate.min_f1=0.99"], 2, "REFUSED: F1 93.0 % (at least 99 %)"),
        (["--set", "gate.min_f1=2"], 1, "gate.min_f1: input should be less than or equal to 1"),
        (["--json"], 0, '"passed": true'),
    ],
)
def test_the_verb_exits_by_the_verdict(
    settings: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "evaluation", evaluation())
    assert run_app(["gate", str(folder), *settings]) == code
    shown = capsys.readouterr()
    assert said in (shown.err if code == 1 else shown.out)


def test_the_verb_names_a_missing_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["gate", str(tmp_path)]) == 1
    assert "no readable evaluation.json" in capsys.readouterr().err
