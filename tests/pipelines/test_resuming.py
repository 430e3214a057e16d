"""What `--resume` takes over: what finished, as far as settings, data and champion are what they were."""

import json
import os
from pathlib import Path

import pytest

from components.artifacts.model_version import CHAMPION
from components.platform.registry import Registry
from pipelines.compile import stage_parameters
from pipelines.config import load_config
from pipelines.launch import Order
from pipelines.resuming import taken_over
from pipelines.runs import RunRecord, find_run, new_run
from pipelines.settings.names import STAGES
from pipelines.settings.pipeline import PipelineConfig
from serving.platform.errors import RunError
from tests.releases import make_context, make_evaluation, registered

ROOT = Path(__file__).resolve().parents[2]
JUDGED = ["verify-data", "train", "evaluate", "quality-gate"]


def configured(tmp_path: Path, *overrides: str) -> PipelineConfig:
    """The configuration of a workspace, with a packed dataset beside it."""
    places = [f"paths.workspace={tmp_path}", f"data.uri={tmp_path / 'packed'}"]
    return load_config("sample", [*places, *overrides], ROOT / "pipeline_config.yaml", {})


@pytest.fixture
def refused(tmp_path: Path) -> RunRecord:
    """A run that the gate refused, of a packed dataset that is older, with an evaluation beside no champion."""
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/dataset.json").write_text("{}")
    os.utime(tmp_path / "packed/dataset.json", (1e9, 1e9))
    record = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    record.status = "refused"
    for stage in STAGES[:4]:
        entry = record.stage(stage)
        entry.status, entry.output_dir = "succeeded", str(tmp_path / "artifacts" / stage)
        Path(entry.output_dir).mkdir(parents=True)
    make_evaluation(record.output("evaluate", "evaluation"), "b" * 64)
    (Path(record.folder) / "parameters.json").write_text(json.dumps(stage_parameters(configured(tmp_path))))
    record.save()
    return record


def stages(record: RunRecord, config: PipelineConfig) -> list[str]:
    """What a run of this configuration takes over."""
    return list(taken_over(record, config, stage_parameters(config)))


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ("gate.min_f1=0", 3),
        ("evaluate.robustness_images=9", 2),
        ("train.epochs=3", 1),
        ("verify_data.seed=7", 0),
        ("data.labels={genuine: real}", 0),
    ],
)
def test_a_refused_run_goes_on_at_the_first_stage_whose_settings_changed(
    refused: RunRecord, tmp_path: Path, changed: str, count: int
) -> None:
    assert stages(refused, configured(tmp_path, changed)) == JUDGED[:count]


def test_a_refused_run_is_not_asked_the_same_again(refused: RunRecord, tmp_path: Path) -> None:
    assert Order.again(refused, ()).resumes is refused
    for same in ("deploy.auto=false", "tracking.experiment=other"):
        with pytest.raises(RunError, match=rf"{refused.run_id} was refused, and nothing has changed.*--set gate\."):
            stages(refused, configured(tmp_path, same))
    refused.status = "failed"
    assert stages(refused, configured(tmp_path)) == JUDGED, "a run that failed later goes on behind its verdict"


def test_a_dataset_that_was_packed_anew_is_read_anew(refused: RunRecord, tmp_path: Path) -> None:
    os.utime(tmp_path / "packed/dataset.json")
    later = Path(refused.folder).stat().st_mtime + 3600
    os.utime(tmp_path / "packed/dataset.json", (later, later))
    assert stages(refused, configured(tmp_path, "gate.min_f1=0")) == []


def test_an_evaluation_beside_another_champion_is_made_again(
    refused: RunRecord, tmp_path: Path, toy_bundle: Path
) -> None:
    context = make_context(tmp_path)
    version = registered(tmp_path / "release", toy_bundle, context)
    registry = Registry(context.tracking_uri, context.model_name)
    config = configured(tmp_path, "gate.min_f1=0")
    assert stages(refused, config) == JUDGED[:3], "no champion, as before"
    registry.point(CHAMPION, version.version)
    assert stages(refused, config) == JUDGED[:2]
    own = tmp_path / "own"
    refused.stage("evaluate").output_dir = str(own)
    make_evaluation(own / "evaluation", version.bundle_digest)
    assert stages(refused, config) == JUDGED[:3], "the champion is the very model that was evaluated"


def test_last_is_the_run_that_was_started_last(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run 'last' in .*; there are none yet; start one: aidetect run"):
        find_run(tmp_path, "last")
    older, newer = (new_run(tmp_path, "local", "sample", "manual", "c0ffee") for _ in range(2))
    older.save()  # a look at a run in the cloud writes its record
    assert find_run(tmp_path, "last").run_id == newer.run_id
    (Path(newer.folder) / "run.json").write_text("{")
    with pytest.raises(RunError, match=rf"{newer.run_id}/run.json: damaged"):
        find_run(tmp_path, "last")
