"""The one rule of decisions: its table, its thresholds, its words, and bundles that do not know them yet."""

import contextlib
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train.calibrate import choose_bands
from components.train.config import DecisionConfig
from serving.detector import bundle
from serving.detector.conclusion import DECISIONS, DecisionBands, Policy, conclude
from serving.detector.decision import DecisionRule
from serving.detector.detector import Detector
from serving.detector.domain import UNKNOWN, Domain, Signal, TrainedDomain, detail, trained_domain
from serving.platform.errors import ImageRefusedError
from serving.provenance.record import NO_CREDENTIALS, SILENT, Credentials, Declared, Provenance, Source
from tests.bundles import jpeg, make_bundle
from tests.photos import package_pictures

BANDS = DecisionBands(real_below=0.3, ai_from=0.7, alpha_real=0.02, alpha_ai=0.05)
RULE = DecisionRule()
OUTSIDE = Domain(False, (Signal("min_side_px", 900.0, 45.3, 90.5),))


def provenance(declared: Declared, c2pa: Credentials = NO_CREDENTIALS) -> Provenance:
    return Provenance(declared, (Source("digital_source_type", "xmp", declared),), c2pa, "untagged")


BROKEN = provenance("none", Credentials(present=True, checked=True, broken=True))
BROKEN_AI = provenance("ai_generated", BROKEN.c2pa)
BROKEN_EDIT = provenance("ai_edited", BROKEN.c2pa)


@pytest.mark.parametrize(
    ("probability", "domain", "said", "decision", "codes"),
    [
        (0.1, UNKNOWN, SILENT, "likely_real", ["score_real"]),
        (0.3, UNKNOWN, SILENT, "review", ["score_between"]),
        (0.5, UNKNOWN, SILENT, "review", ["score_between"]),
        (0.7, UNKNOWN, SILENT, "likely_ai", ["score_ai"]),
        (0.1, OUTSIDE, SILENT, "review", ["outside_domain"]),
        (0.99, OUTSIDE, SILENT, "review", ["outside_domain"]),
        (0.1, UNKNOWN, provenance("ai_generated"), "likely_ai", ["declared_ai_generated", "score_real"]),
        (0.1, OUTSIDE, provenance("ai_generated"), "likely_ai", ["declared_ai_generated", "outside_domain"]),
        (0.1, UNKNOWN, provenance("ai_edited"), "review", ["declared_ai_edited", "score_real"]),
        (0.9, UNKNOWN, provenance("ai_edited"), "likely_ai", ["declared_ai_edited", "score_ai"]),
        (0.1, UNKNOWN, BROKEN, "review", ["credentials_broken", "score_real"]),
        (0.1, UNKNOWN, BROKEN_AI, "likely_ai", ["declared_ai_generated", "credentials_broken", "score_real"]),
        (0.1, UNKNOWN, BROKEN_EDIT, "review", ["declared_ai_edited", "credentials_broken", "score_real"]),
    ],
)
def test_the_table(probability: float, domain: Domain, said: Provenance, decision: str, codes: list[str]) -> None:
    found = conclude(RULE.verdict(probability), BANDS, domain, said, "0" * 64)
    assert (found.decision, [reason.code for reason in found.reasons]) == (decision, codes)
    assert found == conclude(RULE.verdict(probability), BANDS, domain, said, "0" * 64)
    assert all(reason.sentence.endswith(".") for reason in found.reasons)
    json.dumps(found.document())


def test_an_answer_has_these_fields() -> None:
    found = conclude(RULE.verdict(0.1), BANDS, OUTSIDE, SILENT, "ab" * 32)
    assert found.document() == {
        "decision": "review",
        "reasons": [
            {
                "code": "outside_domain",
                "sentence": "The photo is unlike those the model was trained on, so its score says nothing: "
                "smaller side 900 px (trained: 45.3 to 90.5).",
            }
        ],
        "domain": {
            "inside": False,
            "signals": [{"name": "min_side_px", "value": 900.0, "low": 45.3, "high": 90.5, "inside": False}],
        },
        "provenance": SILENT.document(),
        "image_sha256": "ab" * 32,
    }


@pytest.mark.parametrize(
    ("probability", "bands", "sentence"),
    [
        (0.1, BANDS, "The model's score is 0.100, below 0.300, where at most 5.0% of generated photos lie."),
        (0.7, BANDS, "The model's score is 0.700, not below 0.700, where at most 2.0% of real photos lie."),
        (0.5, BANDS, "The model's score is 0.500, between 0.300 and 0.700: too close to call."),
        (0.1, DecisionBands(real_below=0.3, ai_from=0.7), "The model's score is 0.100, below 0.300."),
        (0.9, DecisionBands(real_below=0.3, ai_from=0.7), "The model's score is 0.900, not below 0.700."),
    ],
)
def test_a_score_is_told_with_what_is_promised_of_it(probability: float, bands: DecisionBands, sentence: str) -> None:
    (reason,) = conclude(RULE.verdict(probability), bands, UNKNOWN, SILENT, "").reasons
    assert reason.sentence == sentence


def test_every_reason_says_what_was_found() -> None:
    signals = (Signal("detail", 0.512, None, 0.5), Signal("jpeg_quality", 19.6, 40.0, None))
    (reason,) = conclude(RULE.verdict(0.5), BANDS, Domain(False, signals), SILENT, "").reasons
    assert reason.sentence.endswith(
        "says nothing: detail 0.51 (trained: 0 to 0.5), JPEG quality 20 (trained: 40 and more)."
    )
    sentences = {
        declared: conclude(RULE.verdict(0.5), BANDS, UNKNOWN, provenance(declared), "").reasons[0].sentence
        for declared in ("ai_generated", "ai_edited")
    }
    assert sentences["ai_generated"].startswith("The file says it was generated by AI: ")
    assert sentences["ai_edited"].startswith("The file says it was edited with AI or partly generated: ")
    broken = conclude(RULE.verdict(0.5), BANDS, UNKNOWN, BROKEN, "").reasons[0]
    assert broken.sentence == "The file's Content Credentials do not fit it: it or they were changed after signing."


def test_a_declared_capture_changes_nothing() -> None:
    for probability, domain in itertools.product((0.1, 0.5, 0.9), (UNKNOWN, OUTSIDE)):
        plain, declared = (
            conclude(RULE.verdict(probability), BANDS, domain, said, "") for said in (SILENT, provenance("capture"))
        )
        assert (plain.decision, plain.reasons) == (declared.decision, declared.reasons)


@given(st.floats(0, 1), st.sampled_from(("none", "capture", "ai_edited", "ai_generated")), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_no_statement_lowers_suspicion(probability: float, declared: Declared, broken: bool, inside: bool) -> None:
    domain = UNKNOWN if inside else OUTSIDE
    verdict = RULE.verdict(probability)
    said = provenance(declared, Credentials(present=broken, checked=broken, broken=broken))
    silent, found = (conclude(verdict, BANDS, domain, s, "") for s in (SILENT, said))
    assert DECISIONS.index(found.decision) >= DECISIONS.index(silent.decision)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.2), st.floats(0.01, 0.2))
@settings(max_examples=40)
def test_the_bands_keep_their_promise_on_new_photos(seed: int, alpha_real: float, alpha_ai: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 400)
    config = DecisionConfig(alpha_real=alpha_real, alpha_ai=alpha_ai)
    # the promise is an average over calibration sets: a single one may be off, forty in a row may not
    lost = np.zeros(2)
    for _ in range(20):
        scores = RULE.probabilities(rng.normal(np.where(labels, 1.0, -1.0), 1.5))
        bands = choose_bands(scores, labels, 0.5, config)
        assert bands.real_below <= 0.5 <= bands.ai_from
        fresh = RULE.probabilities(rng.normal(np.where(labels, 1.0, -1.0), 1.5))
        lost += np.mean(fresh[labels == 0] >= bands.ai_from), np.mean(fresh[labels == 1] < bands.real_below)
    assert lost[0] / 20 <= alpha_real + 0.03 and lost[1] / 20 <= alpha_ai + 0.03


def test_a_limit_on_review_widens_both_errors_alike_and_tells_them() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 1], 600)
    scores, fresh = (RULE.probabilities(rng.normal(np.where(labels, 1.5, -1.5), 1.3)) for _ in range(2))
    plain, limited, loose = (
        choose_bands(scores, labels, 0.5, DecisionConfig(max_review=share)) for share in (None, 0.05, 0.9)
    )

    def review(bands: DecisionBands, of: np.ndarray) -> float:
        return float(((of >= bands.real_below) & (of < bands.ai_from)).mean())

    assert plain == loose and review(plain, scores) > 0.1
    assert review(limited, scores) <= 0.05 and review(limited, fresh) <= 0.08
    assert limited.alpha_real and limited.alpha_ai and limited.alpha_real > 0.02
    assert 0.05 < limited.alpha_ai <= 2.5 * limited.alpha_real + 0.001, "in proportion, or as the prediction errs"
    assert (fresh[labels == 0] >= limited.ai_from).mean() <= limited.alpha_real + 0.03
    assert (fresh[labels == 1] < limited.real_below).mean() <= limited.alpha_ai + 0.03


def test_too_few_photos_for_a_promise_leave_the_decision_out() -> None:
    scores, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    bands = choose_bands(scores, labels, 0.5, DecisionConfig())
    assert (bands.real_below, bands.ai_from) == (0.0, 1.0)


def test_a_deployment_sets_its_own_thresholds_and_loses_the_promise_with_them() -> None:
    assert Policy().bands(RULE, BANDS) == BANDS
    assert Policy(ai_from=0.9).bands(RULE, BANDS) == DecisionBands(real_below=0.3, ai_from=0.9, alpha_ai=0.05)
    assert Policy(real_below=0.2).bands(RULE, BANDS) == DecisionBands(real_below=0.2, ai_from=0.7, alpha_real=0.02)
    assert Policy(None, 0.2, 0.9).bands(RULE, BANDS) == DecisionBands(real_below=0.2, ai_from=0.9)
    # a bundle without bands: a confidence that is low is for review
    assert Policy().bands(RULE, None) == DecisionBands(real_below=0.35, ai_from=0.65)
    assert Policy().bands(DecisionRule(threshold=0.3), None) == DecisionBands(real_below=0.3, ai_from=0.65)
    assert Policy().bands(DecisionRule(threshold=0.7), None) == DecisionBands(real_below=0.35, ai_from=0.7)


def test_the_domain_of_like_photos_holds_nearly_all_of_them() -> None:
    rng = np.random.default_rng(1)
    sides = rng.integers(400, 1600, 4000)
    qualities = rng.uniform(70, 95, 2000).tolist()
    details = rng.normal(0.6, 0.05, 4000).tolist()
    domain = trained_domain(np.log2(sides[:2000]).tolist(), qualities, details[:2000], 40.0)
    assert domain.jpeg_quality == 40.0
    assert domain.detail is not None
    low, high = domain.detail
    assert np.mean([not low <= value <= high for value in details[2000:]]) <= 0.01
    assert all(domain.min_side_px[0] <= side <= domain.min_side_px[1] for side in sides[2000:])
    assert not domain.min_side_px[0] <= 4000 <= domain.min_side_px[1]


def test_detail_tells_an_enlarged_picture_from_a_native_one() -> None:
    rng = np.random.default_rng(2)
    native = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
    enlarged = native[:24, :24].repeat(4, axis=0).repeat(4, axis=1)
    of_native, of_enlarged = detail(native[None]), detail(enlarged[None])
    assert of_native and of_enlarged
    assert of_native > 0.95 > 0.6 > of_enlarged
    assert detail(np.full((1, 96, 96, 3), 7, np.uint8)) is None


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A model that knows its domain: 64 px photos."""
    domain = TrainedDomain(min_side_px=(45.3, 90.5), jpeg_quality=40.0)
    return Detector.load(make_bundle(tmp_path_factory.mktemp("knowing") / "b", bands=BANDS, domain=domain))


def test_outside_the_domain_is_for_review_and_never_sure(knowing: Detector) -> None:
    inside, large, crushed = (knowing.judge(data) for data in (jpeg(240), jpeg(240, (400, 400)), jpeg(240, quality=20)))
    assert (inside.conclusion.decision, inside.verdict.confidence) == ("likely_ai", "high")
    for judged, signal in ((large, "min_side_px"), (crushed, "jpeg_quality")):
        assert (judged.conclusion.decision, judged.verdict.confidence) == ("review", "low")
        assert [s.name for s in judged.conclusion.domain.outside_by] == [signal]
    # the pixels' own verdict stands
    assert large.verdict.prediction == "ai_generated"
    assert large.verdict.probability == pytest.approx(inside.verdict.probability, abs=0.05)


def test_photographs_of_packages_beyond_the_trained_side_are_never_sure(knowing: Detector) -> None:
    judged = []
    for data in package_pictures():
        with contextlib.suppress(ImageRefusedError):
            judged.append(knowing.judge(data))
    beyond = [one for one in judged if min(one.info.width, one.info.height) > 90.5]
    assert len(beyond) >= 2
    assert {one.conclusion.decision for one in beyond} == {"review"}
    assert {one.verdict.confidence for one in beyond} == {"low"}
    assert all("min_side_px" in {s.name for s in one.conclusion.domain.outside_by} for one in beyond)


def test_a_bundle_of_before_loads_with_its_own_address_and_decides_by_confidence(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "old")
    document = json.loads((folder / bundle.MANIFEST).read_text())
    assert document.pop("bands") is None and document.pop("domain") is None
    document["preprocessing"].pop("trim")
    document.pop("digest")
    plain = bundle._canonical(document)
    address = hashlib.sha256(plain).hexdigest()
    (folder / bundle.MANIFEST).write_bytes(bundle._canonical({"digest": address, **document}))
    detector = Detector.load(folder)
    assert detector.manifest.digest == address
    assert not detector.preparation.trim
    judged = detector.judge(jpeg(240, (900, 900)))
    assert (judged.conclusion.decision, judged.conclusion.domain) == ("likely_ai", UNKNOWN)
    assert detector.bands() == DecisionBands(real_below=0.35, ai_from=0.65)
