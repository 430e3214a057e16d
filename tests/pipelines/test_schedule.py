"""`aidetect schedule` through the real client libraries: what is sent, what is not, and no doubles."""

from typing import Any

import pytest
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from tests.fakes.gcs import FakeGcs
from tests.fakes.google_rest import GoogleRest
from tests.fakes.kubeflow import FakeKubeflow
from tests.fakes.vertex_pipelines import FakeVertexPipelines, spec_of
from tests.pipelines.conftest import IMAGES, Aidetect

ENABLED = ["schedule.enabled=true", "schedule.cron=30 4 * * 1-5", "schedule.time_zone=Europe/Paris"]
NAME = "ai-product-photo-detector-retraining"


def steps(ran: Any) -> list[str]:
    assert ran.code == 0, ran.err
    return [step["verb"] for step in ran.document["steps"]]


@pytest.fixture
def settings(vertex_settings: list[str]) -> list[str]:
    return [*vertex_settings, *ENABLED]


def test_what_is_created_field_by_field(aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str]) -> None:
    made = aidetect("schedule", "apply", "--json", settings=[*settings, "schedule.max_concurrent_runs=2"])
    assert steps(made) == ["create"]
    (request,) = [r for r in cloud.requests if r.method != "GET"]
    assert (request.method, request.path) == ("POST", "/v1/projects/proj/locations/europe-west1/schedules")
    (schedule,) = cloud.schedules.values()  # parsed by Google's own proto: an unknown field would have been a 400
    assert schedule.display_name == NAME
    assert schedule.cron == "TZ=Europe/Paris 30 4 * * 1-5"
    assert (schedule.max_concurrent_run_count, schedule.max_concurrent_active_run_count) == (2, 2)
    assert not schedule.allow_queueing
    asked = schedule.create_pipeline_job_request
    assert asked.parent == "projects/proj/locations/europe-west1"
    assert asked.pipeline_job_id == ""  # one id for all runs would let only the first start
    job = asked.pipeline_job
    assert job.service_account == "pipeline@proj.iam.gserviceaccount.com"
    assert job.network == "projects/1/global/networks/n"
    assert (job.labels["team"], job.labels["reason"]) == ("trust", "schedule")
    assert job.runtime_config.gcs_output_directory == "gs://bkt/pipeline-root"
    assert job.runtime_config.failure_policy.name == "PIPELINE_FAILURE_POLICY_FAIL_FAST"
    parameters = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job))["runtimeConfig"]["parameterValues"]
    assert (parameters["context"]["run_id"], parameters["context"]["reason"]) == ("", "schedule")
    assert parameters["auto_deploy"] is True
    # what gives every scheduled run an identity of its own
    tasks = spec_of(job)["root"]["dag"]["tasks"]
    constant = tasks["train"]["inputs"]["parameters"]["job"]["runtimeValue"]["constant"]
    assert constant == "{{$.pipeline_job_name}}"
    resources = spec_of(job)["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert resources["accelerator"]["type"] == "NVIDIA_TESLA_T4"


def test_a_second_apply_sends_nothing_and_a_plan_never_does(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str]
) -> None:
    assert steps(aidetect("schedule", "plan", "--json", settings=settings)) == ["create"]
    assert cloud.changes == []
    aidetect("schedule", "apply", settings=settings)
    sent = len(cloud.changes)
    again = aidetect("schedule", "apply", settings=settings)
    assert (again.code, len(cloud.changes)) == (0, sent)
    assert "nothing to change" in again.out and "active, TZ=Europe/Paris 30 4 * * 1-5, next run 2027" in again.out
    assert steps(aidetect("schedule", "plan", "--json", settings=settings)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("schedule.cron=0 3 * * 0", "cron 'TZ=Europe/Paris 30 4 * * 1-5' becomes 'TZ=Europe/Paris 0 3 * * 0'"),
        ("schedule.max_concurrent_runs=3", "concurrent runs 1 become 3"),
        ("train.epochs=7", "the pipeline, its images or its parameters changed"),
        ("vertex.network=", "the pipeline, its images or its parameters changed"),
    ],
)
def test_a_change_updates_the_one_that_stands(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str], change: str, why: str
) -> None:
    aidetect("schedule", "apply", settings=settings)
    changed = aidetect("schedule", "apply", "--json", settings=[*settings, change])
    assert [(step["verb"], step["why"]) for step in changed.document["steps"]] == [("update", why)]
    request = cloud.requests[-2]  # the last looks at what stands now
    assert (request.method, request.path.rpartition("/")[2]) == ("PATCH", "1")
    assert set(request.query["updateMask"].split(",")) == {
        "cron", "maxConcurrentRunCount", "maxConcurrentActiveRunCount", "createPipelineJobRequest"
    }  # fmt: skip
    assert len(cloud.schedules) == 1
    assert steps(aidetect("schedule", "apply", "--json", settings=[*settings, change])) == []


def test_pause_resume_and_delete(aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str]) -> None:
    aidetect("schedule", "apply", settings=settings)
    paused = aidetect("schedule", "pause", "--json", settings=settings)
    assert (steps(paused), paused.document["standing"][0]["state"]) == (["pause"], "paused")
    assert steps(aidetect("schedule", "pause", "--json", settings=settings)) == []
    assert steps(aidetect("schedule", "apply", "--json", settings=settings)) == ["resume"]
    off = [*settings, "schedule.enabled=false"]
    assert steps(aidetect("schedule", "apply", "--json", settings=off)) == ["pause"]
    assert steps(aidetect("schedule", "apply", "--json", settings=off)) == []
    assert steps(aidetect("schedule", "delete", "--json", settings=settings)) == ["delete"]
    assert cloud.schedules == {}
    gone = aidetect("schedule", "delete", settings=settings)
    assert gone.code == 0 and f"vertex has no schedule {NAME}" in gone.out
    assert steps(aidetect("schedule", "apply", "--json", settings=off)) == []
    assert cloud.changes == ["POST schedules", "POST 1:pause", "POST 1:resume", "POST 1:pause", "DELETE 1"]


def test_doubles_are_removed_and_others_schedules_left_alone(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str]
) -> None:
    aidetect("schedule", "apply", settings=settings)
    aidetect("schedule", "apply", settings=[*settings, "schedule.name=another"])
    (mine,) = [s for s in cloud.schedules.values() if s.display_name == NAME]
    double = type(mine)(type(mine).pb(mine))
    double.name, double.create_time = f"{mine.name}9", {"seconds": 1_900_000_000}
    double.create_pipeline_job_request.pipeline_job.labels["schedule-digest"] = "older"
    ended = type(mine)(type(mine).pb(mine))
    ended.name, ended.state = f"{mine.name}8", aiplatform_v1.Schedule.State.COMPLETED
    cloud.schedules |= {double.name: double, ended.name: ended}
    cleaned = aidetect("schedule", "apply", "--json", settings=settings)
    assert steps(cleaned) == ["delete", "delete"]
    assert sorted(s.display_name for s in cloud.schedules.values()) == sorted([NAME, "another"])
    assert mine.name in cloud.schedules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("images.train=registry.example/t:latest", "pin it by digest"),
        ("machines.train.cpu=32", "1 T4 attach to at most 24 CPUs"),
        ("vertex.project=", "set vertex.project"),
        ("schedule.cron=0 3 * *", "five fields"),
        ("schedule.cron=0 25 * * 1", "the hour of a cron"),
        ("schedule.time_zone=Europe/Pariss", "no such time zone"),
        ("schedule.max_concurrent_runs=0", "greater than or equal to 1"),
        ("schedule.crn=x", "schedule.crn: unknown key; did you mean 'schedule.cron'?"),
    ],
)
def test_refused_before_any_request(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str], change: str, message: str
) -> None:
    for verb in ("plan", "apply"):
        ran = aidetect("schedule", verb, settings=[*settings, change])
        assert ran.code == 1 and message in ran.err and len(ran.err.splitlines()) == 1
    assert cloud.requests == []


def test_what_every_run_would_fail_on_is_refused_before_a_schedule_is_made(
    aidetect: Aidetect, cloud: FakeVertexPipelines, gcs: FakeGcs, settings: list[str]
) -> None:
    gcs.missing.add("bkt")
    ran = aidetect("schedule", "apply", settings=settings)
    assert ran.code == 1 and "gs://bkt: no such bucket" in ran.err and len(ran.err.splitlines()) == 1
    assert cloud.changes == []
    gcs.missing.clear()
    ran = aidetect("schedule", "apply", settings=settings)
    assert ran.code == 0 and "estimated cost: $" in ran.err
    assert "estimated cost" not in aidetect("schedule", "apply", settings=settings).err


@pytest.mark.parametrize("code", [403, 404])
def test_a_refusal_is_one_line_and_makes_nothing(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str], code: int
) -> None:
    cloud.fail("POST", "schedules", code)
    ran = aidetect("schedule", "apply", settings=settings)
    assert ran.code == 1 and f"create Vertex AI schedule {NAME}: {code}" in ran.err and len(ran.err.splitlines()) == 1
    assert cloud.schedules == {}


def test_a_busy_server_is_asked_again_and_a_lost_answer_makes_no_double(
    aidetect: Aidetect, cloud: FakeVertexPipelines, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.fail("POST", "schedules", 503, times=1)
    assert steps(aidetect("schedule", "apply", "--json", settings=settings)) == ["create"]
    assert len(cloud.schedules) == 1
    aidetect("schedule", "delete", settings=settings)
    lost: list[str] = []
    create = cloud._create_schedule

    def made_but_unanswered(parent: str, body: dict[str, Any]) -> dict[str, Any]:
        create(parent, body)
        lost.append(parent)
        raise type(cloud).busy()

    monkeypatch.setattr(cloud, "_create_schedule", made_but_unanswered)
    assert steps(aidetect("schedule", "apply", "--json", settings=settings)) == ["create"]
    assert (len(lost), len(cloud.schedules)) == (1, 1)


# --- Kubeflow -------------------------------------------------------------------------------------------------------


@pytest.fixture
def oss(kubeflow: FakeKubeflow, tmp_path: Any) -> list[str]:
    return [
        *IMAGES,
        f"paths.workspace={tmp_path}",
        f"kubeflow.host={kubeflow.url}",
        "kubeflow.request_timeout_s=2",
        "kubeflow.pipeline_root=gs://bkt/oss",
        "kubeflow.service_account=pipeline-runner",
        "train.checkpoint_dir=",
        "tracking.uri=http://mlflow.internal:5000",
        "schedule.target=kubeflow",
        "schedule.enabled=true",
    ]


def test_a_recurring_run_on_kubeflow(aidetect: Aidetect, kubeflow: FakeKubeflow, oss: list[str]) -> None:
    assert steps(aidetect("schedule", "plan", "--json", settings=oss)) == ["create"]
    assert kubeflow.changes == []
    assert steps(aidetect("schedule", "apply", "--json", settings=oss)) == ["create"]
    (made,) = kubeflow.recurring.values()
    assert made["display_name"] == NAME
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (made["mode"], made["no_catchup"], int(made["max_concurrency"])) == ("ENABLE", True, 1)
    assert made["service_account"] == "pipeline-runner"
    assert made["runtime_config"]["pipeline_root"] == "gs://bkt/oss"
    assert made["runtime_config"]["parameters"]["context"]["run_id"] == ""
    assert steps(aidetect("schedule", "apply", "--json", settings=oss)) == []
    changed = [*oss, "train.epochs=3"]
    assert steps(aidetect("schedule", "apply", "--json", settings=changed)) == ["update"]
    assert [run["recurring_run_id"] for run in kubeflow.recurring.values()] == ["rr2"]
    assert steps(aidetect("schedule", "apply", "--json", settings=changed)) == []
    assert steps(aidetect("schedule", "pause", "--json", settings=changed)) == ["pause"]
    assert kubeflow.recurring["rr2"]["mode"] == "DISABLE"
    assert steps(aidetect("schedule", "apply", "--json", settings=changed)) == ["resume"]
    assert steps(aidetect("schedule", "delete", "--json", settings=changed)) == ["delete"]
    assert kubeflow.recurring == {}
    assert kubeflow.changes == [
        "POST experiments", "POST recurringruns", "POST recurringruns", "DELETE rr1", "POST rr2:disable",
        "POST rr2:enable", "DELETE rr2",
    ]  # fmt: skip


def test_an_update_cut_short_is_finished_by_the_next_apply(
    aidetect: Aidetect, kubeflow: FakeKubeflow, oss: list[str]
) -> None:
    aidetect("schedule", "apply", settings=oss)
    kubeflow.fail("DELETE", "rr1", 503, times=1)
    changed = [*oss, "train.epochs=3"]
    cut = aidetect("schedule", "apply", settings=changed)
    assert cut.code == 1 and "503" in cut.err and len(cut.err.splitlines()) == 1
    assert set(kubeflow.recurring) == {"rr1", "rr2"}
    assert steps(aidetect("schedule", "apply", "--json", settings=changed)) == ["delete"]
    assert set(kubeflow.recurring) == {"rr2"}


def test_kubeflow_keeps_its_own_time_zone(aidetect: Aidetect, kubeflow: FakeKubeflow, oss: list[str]) -> None:
    ran = aidetect("schedule", "apply", settings=[*oss, "schedule.time_zone=Europe/Paris"])
    assert ran.code == 1 and "kubeflow.time_zone" in ran.err and len(ran.err.splitlines()) == 1
    assert kubeflow.changes == []
    told = [*oss, "schedule.time_zone=Europe/Paris", "kubeflow.time_zone=Europe/Paris"]
    assert steps(aidetect("schedule", "apply", "--json", settings=told)) == ["create"]


def test_fakes_refuse_what_the_real_ones_would(cloud: FakeVertexPipelines, kubeflow: FakeKubeflow) -> None:
    import httpx

    def post(server: GoogleRest, path: str, body: dict[str, Any]) -> int:
        return httpx.post(f"{server.url}{path}", json=body, trust_env=False).status_code

    assert post(cloud, "/v1/projects/p/locations/l/schedules", {"displayNam": "x"}) == 400
    assert post(kubeflow, "/apis/v2beta1/recurringruns", {"display_nam": "x"}) == 400
