"""`aidetect runs`: what is known of a run in the cloud, asked, followed and stopped through the command line."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.runs import new_run
from tests.fakes.gcs import FakeGcs
from tests.fakes.vertex_pipelines import FakeVertexPipelines
from tests.pipelines.conftest import Aidetect


def started(aidetect: Aidetect, settings: list[str], *words: str) -> dict[str, Any]:
    ran = aidetect("run", "--on", "vertex", "--profile", "production", "--json", *words, settings=settings)
    assert ran.out, ran.err
    document: dict[str, Any] = ran.document
    return document


@pytest.mark.parametrize(("refuses", "status", "code"), [(False, "deployed", 0), (True, "refused", 2)])
def test_a_followed_run_tells_the_gates_sentence_figures_and_reports(
    aidetect: Aidetect,
    cloud: FakeVertexPipelines,
    vertex_settings: list[str],
    tmp_path: Path,
    refuses: bool,
    status: str,
    code: int,
) -> None:
    cloud.refuses = refuses
    record = started(aidetect, vertex_settings)
    assert record["status"] == "submitted"
    summary = tmp_path / "summary.md"
    followed = aidetect(
        "runs", "follow", record["run_id"], "--json", "--summary", str(summary), settings=vertex_settings
    )
    assert followed.code == code, followed.err
    found = followed.document
    word = "REFUSED" if refuses else "PASSED"
    assert (found["status"], found["headline"]) == (status, f"{word}: accuracy 94.0 %")
    assert found["metrics"]["accuracy"] == pytest.approx(0.94)
    assert found["seconds"] == 60.0 * (4 if refuses else 6)
    folder = Path(found["folder"])
    assert (folder / "data.html").read_text() == "<title>verify-data</title>"
    assert (folder / "evaluation.html").is_file()
    lines = summary.read_text().splitlines()
    assert f"**{word}: accuracy 94.0 %**" in lines
    assert f"- {'❌' if refuses else '✅'} accuracy 94.0 % (at least 85 %)" in lines
    listed = aidetect("runs", "list", settings=vertex_settings)
    assert record["run_id"] in listed.out and status in listed.out and "0.9400" in listed.out


def test_show_asks_the_cloud_and_keeps_the_answer(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str]
) -> None:
    record = started(aidetect, vertex_settings)
    before = len(cloud.requests)
    unasked = aidetect("runs", "show", record["run_id"], "--no-refresh", "--json", settings=vertex_settings)
    assert (unasked.document["status"], len(cloud.requests)) == ("submitted", before)
    first = aidetect("runs", "show", record["run_id"], "--json", settings=vertex_settings).document
    assert (first["status"], first["stages"][0]["status"]) == ("submitted", "succeeded")
    cloud.looks[record["resource"]] = 10
    shown = aidetect("runs", "show", record["run_id"], settings=vertex_settings)
    assert shown.code == 0 and "PASSED: accuracy 94.0 %" in shown.out
    asked = len(cloud.requests)
    again = aidetect("runs", "show", record["run_id"], "--json", settings=vertex_settings).document
    assert (again["status"], len(cloud.requests)) == ("deployed", asked)


def test_a_cloud_that_does_not_answer_shows_what_was_last_seen(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str]
) -> None:
    record = started(aidetect, vertex_settings)
    cloud.fail("GET", "pipelineJobs", 403)
    shown = aidetect("runs", "show", record["run_id"], "--json", settings=vertex_settings)
    assert (shown.code, shown.document["status"]) == (0, "submitted")
    assert "shown as last seen: ask Vertex AI about the run: 403" in shown.err
    followed = aidetect("runs", "follow", record["run_id"], settings=vertex_settings)
    assert followed.code == 1 and "403" in followed.err


def test_results_that_cannot_be_read_are_named_and_the_headline_comes_from_vertex(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, vertex_settings: list[str]
) -> None:
    cloud.refuses = True
    record = started(aidetect, vertex_settings)
    gcs.fail("verdict.json", 403)
    cloud.looks[record["resource"]] = 10
    shown = aidetect("runs", "show", record["run_id"], "--json", settings=vertex_settings)
    assert (shown.document["status"], shown.document["headline"]) == ("refused", "REFUSED: accuracy 94.0 %")
    assert "note: read gs://bkt/pipeline-root" in shown.err and "403" in shown.err


def test_a_passed_gate_that_led_nowhere_is_a_failure(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str]
) -> None:
    cloud.refuses, cloud.says_passed = True, True
    record = started(aidetect, vertex_settings)
    followed = aidetect("runs", "follow", record["run_id"], "--json", settings=vertex_settings)
    assert (followed.code, followed.document["status"]) == (1, "failed")
    assert followed.document["error"] == "the gate passed but register did not run; see the run's page"


def test_cancel_stops_a_run_once(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str], tmp_path: Path
) -> None:
    cloud.pace = 1000
    record = started(aidetect, vertex_settings)
    stopped = aidetect("runs", "cancel", record["run_id"], settings=vertex_settings)
    assert (stopped.code, cloud.cancelled) == (0, [record["resource"]])
    shown = aidetect("runs", "show", record["run_id"], "--json", settings=vertex_settings).document
    assert (shown["status"], shown["error"]) == ("interrupted", "cancelled")
    again = aidetect("runs", "cancel", record["run_id"], settings=vertex_settings)
    assert again.code == 1 and "has ended (interrupted); there is nothing to cancel" in again.err
    assert len(cloud.cancelled) == 1


def test_a_run_of_this_machine_is_not_asked_about(aidetect: Aidetect, tmp_path: Path) -> None:
    settings = [f"paths.workspace={tmp_path}", f"data.uri={tmp_path / 'none'}"]
    failed = aidetect("run", "--json", settings=settings)
    record = failed.document
    assert (failed.code, record["status"]) == (1, "failed")
    shown = aidetect("runs", "show", record["run_id"], "--json", settings=settings)
    assert (shown.code, shown.document, shown.err) == (0, record, "")
    for verb in ("cancel", "follow"):
        ran = aidetect("runs", verb, record["run_id"], settings=settings)
        assert ran.code == 1 and "is not in the cloud (target local, failed)" in ran.err
        assert len(ran.err.splitlines()) == 1


def test_the_runs_of_a_workspace_that_was_moved_are_found_with_their_files(aidetect: Aidetect, tmp_path: Path) -> None:
    record = new_run(tmp_path / "old", "local", "sample", "manual", "c0ffee")
    entry = record.stage("quality_gate")
    entry.status, entry.output_dir = "succeeded", f"{record.folder}/artifacts/quality-gate"
    (Path(entry.output_dir) / "verdict").mkdir(parents=True)
    record.stage("train").output_dir = "/elsewhere/train"
    record.status = "refused"
    record.save()
    (tmp_path / "old").rename(tmp_path / "new")
    shown = aidetect("runs", "show", record.run_id, "--json", settings=[f"paths.workspace={tmp_path / 'new'}"])
    assert shown.code == 0, shown.err
    assert shown.document["folder"] == str(tmp_path / "new" / "runs" / record.run_id)
    dirs = {stage["name"]: stage["output_dir"] for stage in shown.document["stages"]}
    assert Path(dirs["quality_gate"], "verdict").is_dir()
    assert dirs["train"] == "/elsewhere/train"
