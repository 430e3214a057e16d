"""`make dvc-repro` on the sample, made small: what runs, what does not run again, and the pinned test split."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.archives import unpack
from tests.docs.conftest import Clone
from tests.e2e.conftest import SMALL

pytestmark = [pytest.mark.system, pytest.mark.slow]

MADE = Path("workspace/dvc/sample")


def set_key(clone: Clone, dotted: str, value: Any) -> None:
    """Change one value of the sample's profile."""
    file = clone.folder / "pipeline_config.yaml"
    document = yaml.safe_load(file.read_text())
    section, *path, leaf = dotted.split(".")
    target = document["profiles"]["sample"].setdefault(section, {})
    for name in path:
        target = target.setdefault(name, {})
    target[leaf] = value
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def repro(clone: Clone) -> list[str]:
    """Run `make dvc-repro`; the stages that ran."""
    done = clone.sh("make -s dvc-repro", timeout_s=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def first(clone: Clone) -> list[str]:
    """The stages that a first run runs."""
    # but the data: the stages pin the test split of the shipped sample
    for key, value in SMALL.items() - {("data.uri", SMALL["data.uri"])}:
        set_key(clone, key, yaml.safe_load(value))
    return repro(clone)


def test_the_first_time_everything_is_made(clone: Clone, first: list[str]) -> None:
    assert first == [f"{stage}@sample" for stage in ("configure", "verify", "train", "evaluate")]
    shown = clone.sh("dvc metrics show --json")
    assert shown.returncode == 0, shown.stderr
    found = next(iter(json.loads(shown.stdout).values()))["data"]
    evaluated = found[str(MADE / "evaluation/evaluation.json")]["data"]
    trained = found[str(MADE / "train.json")]["data"]
    assert evaluated["test"]["n"] == 160
    assert evaluated["bundle_digest"] == trained["digest"]
    plots = clone.sh("dvc plots show -o plots")
    assert plots.returncode == 0, plots.stderr
    assert "roc.svg" in (clone.folder / "plots/index.html").read_text()


def test_the_second_time_nothing_is(clone: Clone, first: list[str]) -> None:
    assert repro(clone) == []


def test_what_was_made_can_be_pushed_and_fetched_elsewhere(clone: Clone, first: list[str]) -> None:
    assert clone.sh("dvc push").returncode == 0
    before = (clone.folder / MADE / "bundle/manifest.json").read_text()
    shutil.rmtree(clone.folder / MADE / "bundle")
    shutil.rmtree(clone.folder / ".dvc/cache")
    done = clone.sh("dvc pull train@sample")
    assert done.returncode == 0, done.stderr
    assert (clone.folder / MADE / "bundle/manifest.json").read_text() == before
    assert clone.sh("dvc pull evaluate@sample verify@sample").returncode == 0


def test_a_changed_knob_runs_train_and_evaluate_again_and_nothing_else(clone: Clone, first: list[str]) -> None:
    set_key(clone, "train.label_smoothing", 0.01)
    assert repro(clone) == [f"{stage}@sample" for stage in ("configure", "train", "evaluate")]


def test_a_knob_of_a_later_stage_makes_nothing_again(clone: Clone, first: list[str]) -> None:
    set_key(clone, "gate.min_accuracy", 0.5)
    assert repro(clone) == ["configure@sample"]


def test_another_test_split_is_refused(clone: Clone, first: list[str]) -> None:
    file = clone.folder / "data/sample/test.parquet"
    kept = file.read_bytes()
    shutil.copy(clone.folder / "data/sample/val.parquet", file)
    done = clone.sh("dvc repro verify@sample")
    assert done.returncode != 0
    assert "data/sample/test.parquet: FAILED" in done.stdout + done.stderr
    file.write_bytes(kept)
    assert repro(clone) == []


def test_a_download_pins_its_test_split(clone: Clone, tmp_path: Path) -> None:
    """The hub's place is taken by a folder in its layout; all else is the stage as it stands."""
    unpack(clone.folder / "tests/sample64/cifake32_layout.tar.gz", tmp_path)
    file = clone.folder / "dvc.yaml"
    text = file.read_text()
    hub = text.replace("data download cifake", f"data download hf://{tmp_path / 'sample_cifake32'}")
    assert hub != text
    file.write_text(hub)
    done = clone.sh("dvc repro download")
    file.write_text(text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.sh("sha256sum --check data/holdout/local.sha256").returncode == 0
    summary = json.loads((clone.folder / "data/cifake/dataset.json").read_text())
    assert set(summary["splits"]) == {"train", "val", "test"}
