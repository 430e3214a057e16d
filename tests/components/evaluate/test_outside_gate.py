"""`evaluate.outside` and `gate.max_confident_errors_outside`, through the verbs: measured, judged, refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests.bundles import jpeg
from tests.e2e.conftest import SMALL

LIMIT = "gate.max_confident_errors_outside"


def verb(*words: str, **settings: object) -> Any:
    overrides = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return CliRunner().invoke(app, [*words, *overrides])


def evaluated(bundle: Path, dataset: Path, out: Path, place: str) -> Any:
    words = ["evaluate", "--bundle", str(bundle), "--dataset", str(dataset), "-o", str(out), "--json"]
    quick: dict[str, object] = {k: v for k, v in SMALL.items() if k.startswith("evaluate.")}
    quick |= {"evaluate.robustness": "{}", "evaluate.gallery_images": 0}
    tracking = {"tracking.uri": f"sqlite:///{out.parent / 'none.db'}", "evaluate.champion_uri": ""}
    return verb(*words, **{**quick, **tracking, "evaluate.outside": place})


def judged(folder: Path, **settings: object) -> Any:
    mild = {"gate.min_accuracy": 0.1, "gate.min_f1": 0.1, "gate.min_test_images": 0}
    return verb("gate", str(folder), "--json", **{**mild, **settings})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten dark photos and ten generated pictures, four of which are as dark as a photo; one file is none."""
    folder = tmp_path_factory.mktemp("outside") / "photos"
    for label, levels in (("real", [40] * 10), ("ai_generated", [20] * 4 + [230] * 6)):
        (folder / label).mkdir(parents=True)
        for number, level in enumerate(levels):
            (folder / label / f"{number}.jpg").write_bytes(jpeg(level, seed=number))
    (folder / "real" / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_sure_errors_outside_the_data_are_measured_and_judged(
    toy_bundle: Path, dataset: Path, photos: Path, tmp_path: Path
) -> None:
    ran = evaluated(toy_bundle, dataset, tmp_path / "evaluation", str(photos))
    assert ran.exit_code == 0, f"{ran.output}{ran.exception}"
    real, generated = json.loads(ran.stdout)["outside"]["classes"]
    assert (real["n"], real["refused"], real["confident_errors"]["value"]) == (10, 1, 0.0)
    assert generated["n"] == 10 and generated["confident_errors"]["value"] == pytest.approx(0.4)
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert "Photos outside the data" in page and "40.0 %" in page

    silent = judged(tmp_path / "evaluation")
    assert silent.exit_code == 0, silent.output
    assert LIMIT.split("_", 1)[1] not in {c["name"] for c in json.loads(silent.stdout)["checks"]}, "off by default"
    for limit, code, outcome in ((0.5, 0, "passed"), (0.1, 2, "refused")):
        ran = judged(tmp_path / "evaluation", **{LIMIT: limit})
        assert ran.exit_code == code, ran.output
        (check,) = [c for c in json.loads(ran.stdout)["checks"] if c["name"] == "confident_errors_outside"]
        assert check["outcome"] == outcome and check["value"] == pytest.approx(0.4)
        assert check["sentence"].startswith("wrong with high confidence on ai_generated photos outside the data 40.0 %")
    noted = judged(tmp_path / "evaluation", **{LIMIT: 0.1, "gate.report_only": "[confident_errors_outside]"})
    assert noted.exit_code == 0 and '"reported"' in noted.stdout
    by_interval = judged(tmp_path / "evaluation", **{LIMIT: 0.5, "gate.use_lower_bound": "true"})
    assert by_interval.exit_code == 2, "four of ten do not show that it is under a half"


def test_what_was_not_measured_refuses(toy_outcome: Any) -> None:
    ran = judged(toy_outcome.folder, **{LIMIT: 0.5})
    assert ran.exit_code == 2
    assert "errors outside the data were not measured: set evaluate.outside to a labelled folder" in ran.stdout


def test_a_class_without_a_verdict_is_no_proof(toy_bundle: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "photos/fake").mkdir(parents=True)
    (tmp_path / "photos/fake/a.jpg").write_bytes(b"no photo")
    ran = evaluated(toy_bundle, dataset, tmp_path / "evaluation", str(tmp_path / "photos"))
    assert ran.exit_code == 0, f"{ran.output}{ran.exception}"
    refused = judged(tmp_path / "evaluation", **{LIMIT: 1.0})
    assert refused.exit_code == 2 and "not a number" in refused.stdout


@pytest.mark.parametrize(("place", "words"), [("nowhere", "no folder there"), ("flat", "no folder of a class there")])
def test_a_folder_that_is_none_costs_no_scoring(
    toy_bundle: Path, dataset: Path, tmp_path: Path, place: str, words: str
) -> None:
    (tmp_path / "flat").mkdir()
    ran = evaluated(toy_bundle, dataset, tmp_path / "evaluation", str(tmp_path / place))
    assert ran.exit_code == 1 and words in str(ran.exception) and not (tmp_path / "evaluation").exists()


def test_a_limit_on_what_nothing_measures_is_refused_before_anything_runs(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "pipeline.json"
    ran = verb("compile", "-o", str(out), **{LIMIT: 0.1})
    assert ran.exit_code == 1 and "set evaluate.outside to a labelled folder" in str(ran.exception)
    ran = verb("compile", "-o", str(out), **{LIMIT: 0.1, "evaluate.outside": str(photos)})
    assert ran.exit_code == 0, f"{ran.output}{ran.exception}"
    parameters = json.loads(out.read_text())["root"]["inputDefinitions"]["parameters"]
    assert parameters["evaluate_config"]["defaultValue"]["outside"] == str(photos)
    assert parameters["gate_config"]["defaultValue"]["max_confident_errors_outside"] == 0.1
