"""What the workflows ask of `aidetect` besides Cloud Run: summaries in Markdown, and the smoke test's refusals."""

import shutil
import sys
from pathlib import Path

import pytest

from components.artifacts.model_version import CHAMPION
from components.deploy.preview import champion
from components.deploy.promotion import approved_examples
from components.platform.registry import Registry
from pipelines.cli.app import run_app
from pipelines.cli.markdown import run_markdown
from pipelines.conclusion import conclude
from pipelines.runs import RunRecord, new_run
from serving.platform.errors import StageError
from tests.releases import make_context, make_verdict, registered


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    """A summary in which an earlier step has written."""
    path = tmp_path / "summary.md"
    path.write_text("# Earlier step\n\n")
    return path


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    """A run whose gate has spoken."""
    made = new_run(tmp_path, "local", "sample", "drift: <b>scores</b> moved", "c0ffee" * 6)
    for name in ("verify_data", "train", "evaluate", "quality_gate"):
        stage = made.stage(name)
        stage.status, stage.seconds = "succeeded", 1.25
        stage.output_dir = str(tmp_path / "out" / name)
    return made


@pytest.mark.parametrize(("passed", "mark", "status"), [(True, "✅", "registered"), (False, "❌", "refused")])
def test_a_run_tells_its_status_the_gates_sentences_and_its_stages(
    record: RunRecord, passed: bool, mark: str, status: str
) -> None:
    make_verdict(record.output("quality_gate", "verdict"), "d" * 64, passed=passed)
    if passed:
        record.stage("register").status = "succeeded"
    conclude(record, "succeeded")
    lines = run_markdown(record).splitlines()
    assert lines[0] == f"## Run {record.run_id}: {status}"
    assert f"**{'PASSED' if passed else 'REFUSED'}: accuracy 94.0 %**" in lines
    assert f"- {mark} accuracy 94.0 % (at least 85 %)" in lines
    table = [line for line in lines if line.startswith("| ")]
    assert table[0] == "| stage | status | seconds |"
    assert "| train | succeeded | 1.2 |" in table
    assert "| deploy | not run |  |" in table
    assert len(table) == 7
    # a reason comes from outside: it must not become markup
    assert "Started for drift: &lt;b>scores&lt;/b> moved, on local, from `c0ffeec0ffee`." in lines


def test_a_run_in_the_cloud_has_the_headline_that_is_known_and_its_page(record: RunRecord) -> None:
    record.stage("quality_gate").output_dir = ""
    record.link, record.headline, record.status = "https://console.test/run", "PASSED: accuracy 94.0 %", "deployed"
    lines = run_markdown(record).splitlines()
    assert "**PASSED: accuracy 94.0 %**" in lines
    assert "[The run's page](https://console.test/run)" in lines


def test_a_run_that_fails_appends_what_failed(tmp_path: Path, summary: Path) -> None:
    (tmp_path / "images").mkdir()
    arguments = ["run", "--json", "--data", str(tmp_path / "images"), "--set", f"paths.workspace={tmp_path}"]
    assert run_app([*arguments, "--summary", str(summary)]) == 1
    assert f"{tmp_path / 'images'}: an empty folder" in summary.read_text()
    summary.write_text("# Earlier step\n\n")
    (tmp_path / "images/notes.txt").write_text("no folder here is named for a class")
    assert run_app([*arguments, "--summary", str(summary)]) == 1
    text = summary.read_text()
    assert text.startswith("# Earlier step\n\n## Run ")
    assert ": failed\n" in text
    assert "| verify_data | failed |" in text
    assert "| train | not run |" in text


def test_retrain_appends_the_decision_and_its_reasons(tmp_path: Path, summary: Path, served: str) -> None:
    workspace = ["--set", f"paths.workspace={tmp_path}"]
    arguments = ["retrain", "--sync", "--url", served, "--summary", str(summary), *workspace]
    assert run_app(arguments) == 0
    assert summary.read_text() == (
        "# Earlier step\n\n## Decision: do not retrain\n\nnothing calls for it\n\n"
        "- drift: ok\n- age: 10.0 days, limit 90\n- new labels: 0, needed 500\n"
        "- declared uploads recognised: unknown, wanted 80%\n\n"
    )


def test_retrain_that_starts_a_run_appends_the_decision_and_the_run(tmp_path: Path, summary: Path, served: str) -> None:
    (tmp_path / "images").mkdir()
    arguments = ["retrain", "--sync", "--json", "--url", served, "--summary", str(summary)]
    settings = {"paths.workspace": tmp_path, "data.uri": tmp_path / "images", "retrain.max_age_days": 5}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert run_app([*arguments, *sets]) == 1
    text = summary.read_text()
    assert "## Decision: retrain\n\nversion 3 is 10 days old, the limit is 5\n" in text
    assert text.index("## Decision: retrain") < text.index("## Run ")
    assert "Started for age: version 3 is 10 days old, the limit is 5, on local" in text


def test_retrain_without_an_answer_says_so_in_the_summary(
    tmp_path: Path, summary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retrain", "--url", "http://127.0.0.1:9", "--set", f"paths.workspace={tmp_path}"]
    assert run_app([*arguments, "--summary", str(summary)]) == 1
    assert "is it running?" in capsys.readouterr().err
    assert "## aidetect retrain failed\n\nhttp://127.0.0.1:9/drift: no answer" in summary.read_text()


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (["smoke", "http://127.0.0.1:9"], "has no champion"),
        (
            ["deploy", "--image", "serving@sha256:" + "1" * 64],
            "--image needs deploy.target cloud_run; it is local here",
        ),
        (["deploy", "--remove-tag", "pr-7"], "previews need deploy.target cloud_run; it is local here"),
    ],
)
def test_refusals_on_a_fresh_workspace_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], words: str
) -> None:
    assert run_app([*verb, "--set", f"paths.workspace={tmp_path}"]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promote", "7"], "promoting version 7 of "),
        (["rollback"], "rolling "),
        (["deploy"], "deploying "),
        (["smoke", "http://127.0.0.1:9"], "asking http://127.0.0.1:9 about the golden images"),
    ],
)
def test_what_takes_seconds_is_said_at_once_to_a_person_and_not_to_a_script(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_there = [*words, "--set", f"paths.workspace={tmp_path}"]
    # beside a registry of no versions: none of it loads MLflow before it has spoken
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run_app(nothing_there) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run_app(nothing_there) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(said) and told[0].endswith("...") and len(told) == 2


def test_the_champion_of_a_registry_in_a_file_is_found_without_mlflow(
    toy_bundle: Path, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    context = make_context(tmp_path, artifact_root=(tmp_path / "mlflow-artifacts").as_uri())
    made = registered(tmp_path / "1", toy_bundle, context)
    with pytest.raises(StageError, match="has no champion"):
        champion(context.tracking_uri, context.model_name)
    Registry(context.tracking_uri, context.model_name).point(CHAMPION, "1")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    found = champion(context.tracking_uri, context.model_name)
    assert found == made
    assert approved_examples(found, tmp_path / "scratch")
