"""`aidetect score --on vertex|kubeflow` and `aidetect schedule --pipeline catalogue`: what is sent, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from components.catalogue.config import CatalogueConfig
from components.catalogue.summary import Summary
from components.catalogue.tasks import Place
from pipelines.config import load_config
from pipelines.runs import together
from pipelines.targets.docker import container_options
from tests.fakes.gcs import FakeGcs
from tests.fakes.kubeflow import FakeKubeflow
from tests.fakes.vertex_pipelines import FakeVertexPipelines, spec_of
from tests.pipelines.conftest import IMAGES, Aidetect, Ran
from tests.pipelines.test_compile import ROOT

SOURCE, RESULTS, MODEL = "gs://bkt/feed.tsv", "gs://bkt/results", "gs://bkt/bundle"
PLACES = [f"catalogue.source={SOURCE}", f"catalogue.output={RESULTS}"]


def score(aidetect: Aidetect, on: str, settings: list[str], *words: str, source: str = SOURCE) -> Ran:
    return aidetect(
        "score", source, "-o", RESULTS, "--on", on, "--model", MODEL, "--profile", "production", "--json", *words,
        settings=settings,
    )  # fmt: skip


def summary(worker_died: int = 0) -> bytes:
    found = Summary(
        photos=3, scored=3 - worker_died, refused=worker_died, decisions={"review": 3}, predictions={}, refusals={},
        declared={}, worker_died=worker_died, cpu_seconds=1.0, most_suspicious=[], slowest=[],
    )  # fmt: skip
    return found.model_dump_json().encode()


def test_what_is_submitted_to_vertex_field_by_field(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str]
) -> None:
    ran = score(aidetect, "vertex", vertex_settings, "--column", "image_link", "--workers", "3")
    assert ran.code == 0, ran.err
    record = ran.document
    assert (record["pipeline"], record["status"]) == ("catalogue", "submitted")
    assert [stage["name"] for stage in record["stages"]] == ["plan_catalogue", "score_group", "report_catalogue"]
    (request,) = [request for request in cloud.requests if request.method != "GET"]
    assert request.query["pipelineJobId"] == f"ai-product-photo-catalogue-{record['run_id']}"
    (job,) = cloud.jobs.values()
    assert job.service_account == "pipeline@proj.iam.gserviceaccount.com"
    parameters = request.body["runtimeConfig"]["parameterValues"]
    config = parameters.pop("config")
    assert parameters == {
        "source": SOURCE, "destination": RESULTS, "model_uri": MODEL, "tracking_uri": "http://mlflow.internal:5000"
    }  # fmt: skip
    assert (config["columns"], config["workers"]) == (["image_link"], 3)
    executors = spec_of(job)["deploymentSpec"]["executors"]
    assert all("accelerator" not in json.dumps(executor) for executor in executors.values())
    assert "estimated cost" not in ran.err


@pytest.mark.parametrize(("died", "code"), [(0, 0), (1, 1)])
def test_a_run_on_vertex_is_followed_to_its_rows(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, vertex_settings: list[str], died: int, code: int
) -> None:
    gcs.put(f"{RESULTS}/summary.json", summary(died))
    ran = score(aidetect, "vertex", vertex_settings, "--sync")
    assert (ran.code, ran.document["worker_died"]) == (code, died), ran.err
    (listed,) = aidetect("runs", "--json", settings=vertex_settings).document
    assert listed["status"] == "scored"
    assert [stage["seconds"] for stage in listed["stages"]] == [60.0, 60.0, 60.0]
    assert (Path(listed["folder"]) / "catalogue.html").read_text() == "<title>report-catalogue</title>"
    shown = aidetect("runs", "show", listed["run_id"], settings=vertex_settings)
    assert shown.code == 0 and "score_group" in shown.out
    again = aidetect("run", "--resume", listed["run_id"], settings=vertex_settings)
    assert again.code == 1 and "aidetect score" in again.err and len(again.err.splitlines()) == 1
    misled = aidetect("gate", listed["run_id"], settings=vertex_settings)
    assert misled.code == 1 and "made no evaluation" in misled.err


def test_a_group_that_fails_fails_the_run_with_its_words(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str]
) -> None:
    cloud.fails = "score-group"
    ran = score(aidetect, "vertex", vertex_settings, "--sync")
    assert (ran.code, ran.document["error"]) == (1, "score_group: score-group says why")


def test_one_group_of_many_that_failed_or_runs_is_not_hidden_by_the_next() -> None:
    assert together(["succeeded", "failed", "succeeded"]) == "failed"
    assert together(["succeeded", "running", "pending"]) == together(["succeeded", "pending"]) == "running"
    assert together(["succeeded", "succeeded"]) == "succeeded"


def test_what_is_submitted_to_kubeflow(
    aidetect: Aidetect, kubeflow: FakeKubeflow, gcs: FakeGcs, tmp_path: Path
) -> None:
    gcs.put(f"{RESULTS}/summary.json", summary())
    settings = [*IMAGES, f"paths.workspace={tmp_path}", f"kubeflow.host={kubeflow.url}", "kubeflow.poll_s=0.01"]
    settings += ["tracking.uri=http://mlflow.internal:5000"]
    ran = score(aidetect, "kubeflow", settings, "--sync")
    assert (ran.code, ran.document["photos"]) == (0, 3), ran.err
    (sent,) = kubeflow.runs.values()
    assert sent["runtime_config"]["parameters"]["destination"] == RESULTS


@pytest.mark.parametrize("on", ["vertex", "kubeflow"])
def test_a_place_on_this_disk_is_refused_before_anything_is_sent(
    aidetect: Aidetect, cloud: FakeVertexPipelines, kubeflow: FakeKubeflow, vertex_settings: list[str], on: str
) -> None:
    settings = [*vertex_settings, f"kubeflow.host={kubeflow.url}"]
    ran = score(aidetect, on, settings, source="photos")
    assert ran.code == 1 and "catalogue.source" in ran.err and "is on this disk" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert cloud.changes == kubeflow.changes == []
    wrong = score(aidetect, "moon", settings)
    assert wrong.code == 1 and "no place 'moon'" in wrong.err


def test_the_results_bucket_is_asked_for_before_a_submission(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, vertex_settings: list[str]
) -> None:
    gcs.missing.add("elsewhere")
    ran = aidetect(
        "score", SOURCE, "-o", "gs://elsewhere/results", "--on", "vertex", "--model", MODEL, "--profile", "production",
        settings=vertex_settings,
    )  # fmt: skip
    assert ran.code == 1 and "gs://elsewhere: no such bucket" in ran.err
    assert cloud.changes == []


def test_the_recurring_catalogue_has_a_schedule_of_its_own_and_a_folder_a_run(
    aidetect: Aidetect, cloud: FakeVertexPipelines, vertex_settings: list[str]
) -> None:
    catalogue = [*vertex_settings, *PLACES, "catalogue_schedule.enabled=true"]
    training = aidetect("schedule", "apply", settings=[*vertex_settings, "schedule.enabled=true"])
    made = aidetect("schedule", "apply", "--pipeline", "catalogue", "--json", settings=catalogue)
    assert (training.code, made.code) == (0, 0), made.err
    assert [step["verb"] for step in made.document["steps"]] == ["create"]
    names = {schedule.display_name: schedule for schedule in cloud.schedules.values()}
    assert set(names) == {"ai-product-photo-detector-retraining", "ai-product-photo-catalogue"}
    job = names["ai-product-photo-catalogue"].create_pipeline_job_request.pipeline_job
    document: dict[str, Any] = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job))
    assert document["runtimeConfig"]["parameterValues"]["destination"] == RESULTS
    plan = spec_of(job)["root"]["dag"]["tasks"]["plan-catalogue"]["inputs"]["parameters"]
    assert plan["run"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"
    again = aidetect("schedule", "plan", "--pipeline", "catalogue", "--json", settings=catalogue)
    assert again.document["steps"] == []
    paused = aidetect("schedule", "pause", "--pipeline", "catalogue", "--json", settings=catalogue)
    assert [found["state"] for found in paused.document["standing"]] == ["paused"]
    unset = aidetect("schedule", "apply", "--pipeline", "catalogue", settings=vertex_settings)
    assert unset.code == 1 and "set catalogue.source; set catalogue.output" in unset.err


def test_a_run_of_a_schedule_writes_below_the_folder_that_is_named() -> None:
    config = CatalogueConfig()
    assert Place("gs://b/out/", "123", "", "", config).results == "gs://b/out/123"
    assert Place("gs://b/out/", "", "", "", config).results == "gs://b/out/"


def test_containers_see_a_feeds_folder_and_write_to_the_results_only(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/feed.csv").write_text("url\n")
    base = load_config("sample", [f"paths.workspace={tmp_path}/w"], ROOT / "pipeline_config.yaml", {})
    for source in (f"{tmp_path}/shop/feed.csv", f"{tmp_path}/shop/*.jpg", f"{tmp_path}/shop"):
        options = container_options(base.for_catalogue(source, f"{tmp_path}/out", "").on_this_disk())
        mounted = {mount["Source"]: mount["ReadOnly"] for mount in options["mounts"]}
        assert mounted[f"{tmp_path}/shop"] is True
        assert mounted[f"{tmp_path}/out"] is False
    measured = base.changed("evaluate", outside=f"{tmp_path}/shop").on_this_disk()
    mounted = {mount["Source"]: mount["ReadOnly"] for mount in container_options(measured)["mounts"]}
    assert mounted[f"{tmp_path}/shop"] is True, "a training's labelled folder outside the data"
