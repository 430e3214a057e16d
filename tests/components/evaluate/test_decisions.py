"""Decisions are counted in the evaluation as the server makes them, on every image of test and unseen."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.artifacts.dataset import TEST, UNSEEN, Dataset
from components.artifacts.evaluation import PREDICTIONS_PARQUET
from components.evaluate.config import EvaluateConfig
from components.evaluate.recount import check_figures
from components.evaluate.stage import flat_metrics
from serving.detector.conclusion import DecisionBands
from serving.detector.detector import Detector
from serving.detector.domain import TrainedDomain
from serving.platform.errors import StageError
from tests.bundles import make_bundle
from tests.components.evaluate.conftest import run


def test_decisions_are_those_of_the_server(
    dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    bands = DecisionBands(real_below=0.4, ai_from=0.7, alpha_real=0.02, alpha_ai=0.05)
    # a third of the pictures has a smaller side of 80 px, some are coarser than this
    domain = TrainedDomain(min_side_px=(50, 70), detail=(0.6, 1.5), jpeg_quality=50)
    bundle = make_bundle(tmp_path / "bundle", bands=bands, domain=domain)
    found = run(bundle, dataset, quick.model_copy(update={"robustness": {}, "champion_uri": str(toy_bundle)}), tmp_path)
    detector, data = Detector.load(bundle), Dataset(dataset)
    rows = pq.read_table(found.folder / PREDICTIONS_PARQUET).to_pylist()
    for split, scores in ((TEST, found.evaluation.test), (UNSEEN, found.evaluation.unseen_generator)):
        judged = [detector.judge(image).conclusion for image in data.images(split)]
        mine = [r for r in rows if r["model"] == "candidate" and r["split"] == split]
        assert [r["decision"] for r in mine] == [one.decision for one in judged]
        assert scores is not None and scores.decisions is not None
        figures, decided = scores.decisions, np.array([one.decision for one in judged])
        ai = np.array([r["label"] == "ai_generated" for r in mine])
        told = {name: share.value for name, share in figures.told}
        assert told["sent to review"] == pytest.approx((decided == "review").mean())
        assert told["generated called likely_real"] == pytest.approx((decided[ai] == "likely_real").mean())
        assert told["outside the domain"] == pytest.approx(np.mean([not one.domain.inside for one in judged]))
        for name in ("min_side_px", "detail", "jpeg_quality"):
            by = [name in {signal.name for signal in one.domain.outside_by} for one in judged]
            assert told[f"outside by {name}"] == pytest.approx(np.mean(by))
        if split == TEST:
            assert told["real called likely_ai"] == pytest.approx((decided[~ai] == "likely_ai").mean())
            assert 0.3 < told["outside by min_side_px"] < 0.4 and set(decided) == {"likely_real", "review", "likely_ai"}
            assert flat_metrics(found.evaluation)["test_sent_to_review"] == told["sent to review"]
        else:
            assert figures.real_called_ai is None, "no real photo is there"
    assert {r["decision"] for r in rows if r["model"] == "champion"} == {None}
    assert found.comparison.champion.decisions is None
    # what is registered is believed only where its verdicts give it
    assert check_figures(found.folder) == found.evaluation
    document = json.loads((found.folder / "evaluation.json").read_text())
    document["test"]["decisions"]["to_review"]["value"] = 0.01
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "evaluation.json").write_text(json.dumps(document))
    shutil.copy(found.folder / PREDICTIONS_PARQUET, tmp_path / "edited")
    with pytest.raises(StageError, match=r"test\.decisions\.to_review\.value 0\.01 does not follow"):
        check_figures(tmp_path / "edited")
    page = found.report.read_text()
    assert "at most 2.0 % of real photos called <code>likely_ai</code> and 5.0 %" in page
    assert page.count("<td>Outside by ") == 3 and "A person would have to look at " in page


def test_a_bundle_of_before_has_decisions_and_no_domain(
    dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    found = run(toy_bundle, dataset, quick.model_copy(update={"robustness": {}}), tmp_path).evaluation.test.decisions
    assert found is not None and found.to_review is not None and found.promised_real is None
    assert found.outside_domain is None and found.outside_by == {}, "nothing is known, which is not 0 %"
