"""`vertex.caching`: what an earlier run answers for on Vertex AI, and what it never does."""

import json
from pathlib import Path

import pytest

from tests.fakes.gcs import FakeGcs
from tests.fakes.vertex_pipelines import FakeVertexPipelines, spec_of
from tests.pipelines.conftest import Aidetect, Ran

ALWAYS = ("evaluate", "quality_gate", "register", "deploy")
PHOTO = "gs://photos/set/train/real/1.jpg"


@pytest.fixture
def settings(vertex_settings: list[str], gcs: FakeGcs) -> list[str]:
    gcs.put(PHOTO, b"a photo")
    return [*vertex_settings, "vertex.caching=true", "data.uri=gs://photos/set"]


@pytest.fixture
def run(aidetect: Aidetect, settings: list[str]) -> "Run":
    return Run(aidetect, settings)


class Run:
    """`aidetect run --on vertex --sync`, and what became of each stage."""

    def __init__(self, aidetect: Aidetect, settings: list[str]) -> None:
        self.aidetect, self.settings = aidetect, settings

    def __call__(self, *changes: str, why: str = "manual") -> Ran:
        words = ("run", "--on", "vertex", "--profile", "production", "--sync", "--reason", why, "--json")
        return self.aidetect(*words, settings=[*self.settings, *changes])

    def cached(self, *changes: str, why: str = "manual") -> list[str]:
        """The stages that an earlier run answered for."""
        return cached(self(*changes, why=why))


def cached(ran: Ran) -> list[str]:
    return [stage["name"] for stage in ran.document["stages"] if stage["cached"]]


def test_a_second_run_is_answered_for_data_and_training_and_nothing_that_reads_the_registry(
    run: Run, cloud: FakeVertexPipelines
) -> None:
    cloud.fails = "evaluate"
    failed = run()
    assert (failed.code, cached(failed)) == (1, [])
    cloud.fails = ""
    # another reason, and what concerns later stages only: evaluate's own settings, the gate's, the release's
    done = run("gate.min_accuracy=0.9", "evaluate.seed=7", "deploy.auto=true", why="schedule")
    assert (done.code, done.document["status"]) == (0, "deployed")
    assert cached(done) == ["verify_data", "train"]
    seconds = {stage["name"]: stage["seconds"] for stage in done.document["stages"]}
    assert seconds["train"] == 0.0 < seconds["evaluate"]
    first, last = (spec_of(job) for job in cloud.jobs.values())
    assert first["deploymentSpec"] == last["deploymentSpec"]


def test_what_a_stage_is_made_of_decides(run: Run, gcs: FakeGcs) -> None:
    other = "@sha256:" + "b2" * 32
    hub = f"data.uri=hf://owner/photos@{'c3' * 20}"
    assert run.cached() == []
    for change, answered in (
        ("train.epochs=3", ["verify_data"]),
        (f"images.train=registry.example/train{other}", ["verify_data"]),
        (f"images.pipeline=registry.example/pipeline{other}", []),
        ("verify_data.limit=9", []),
        ("vertex.caching=false", []),
        (hub, []),
        (hub, ["verify_data", "train"]),
    ):
        assert run.cached(change) == answered, change
    # the same address, and something else lies there
    gcs.put(PHOTO, b"another photo in its place")
    assert run.cached() == []
    gcs.put("gs://photos/set/train/real/2.jpg", b"one more")
    assert run.cached() == []


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("gs://photos/nothing", "gs://photos/nothing holds no object"),
        ("hf://owner/photos", "hf://owner/photos may change; name the commit (hf://NAME@<40 hex>)"),
        ("gs://secret/set", "403"),
    ],
)
def test_where_the_data_s_state_is_not_known_everything_runs_and_the_run_says_so(
    run: Run, cloud: FakeVertexPipelines, gcs: FakeGcs, uri: str, why: str
) -> None:
    if "secret" in uri:
        gcs.fail("/b/secret/o", 403)
    words = ("run", "--on", "vertex", "--profile", "production", "--sync")
    ran = run.aidetect(*words, settings=[*run.settings, f"data.uri={uri}"])
    (said,) = [line for line in (ran.out + ran.err).splitlines() if "nothing is answered from the cache" in line]
    assert why in said
    (job,) = cloud.jobs.values()
    assert "enableCache" not in json.dumps(spec_of(job))


def test_an_answer_whose_files_were_deleted_is_named_with_what_to_do(
    run: Run, cloud: FakeVertexPipelines, gcs: FakeGcs
) -> None:
    run()
    for key in [key for key in gcs.objects if "/bundle/" in key]:
        del gcs.objects[key]
    cloud.fails = "evaluate"
    ran = run()
    assert ran.code == 1
    assert ran.document["error"].startswith("evaluate: evaluate says why; the cache answered train with gs://bkt/")
    assert ran.document["error"].endswith("/bundle, which is deleted; run with vertex.caching=false")


def test_a_run_that_cannot_be_resumed_says_what_answers_in_its_place(run: Run, cloud: FakeVertexPipelines) -> None:
    cloud.fails = "evaluate"
    failed = run()
    again = run.aidetect("run", "--resume", failed.document["run_id"], settings=run.settings[3:4])
    assert again.code == 1
    assert "start it again by the command that started it (where both runs have vertex.caching=true" in again.err


def test_schedules_and_catalogues_are_never_answered(
    aidetect: Aidetect, settings: list[str], cloud: FakeVertexPipelines, tmp_path: Path
) -> None:
    schedule = ["schedule.enabled=true", "schedule.cron=30 4 * * 1-5"]
    assert aidetect("schedule", "apply", settings=[*settings, *schedule]).code == 0
    (made,) = cloud.schedules.values()
    words = ("score", "gs://photos/set", "--output", "gs://photos/out", "--on", "vertex", "--profile", "production")
    assert aidetect(*words, settings=settings).code == 0
    (job,) = cloud.jobs.values()
    for sent in (made.create_pipeline_job_request.pipeline_job, job):
        spec = spec_of(sent)
        dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
        options = [task.get("cachingOptions", {}) for dag in dags for task in dag["tasks"].values()]
        assert options and not any(option.get("enableCache") for option in options)
