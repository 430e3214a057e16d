"""Registering: what a version holds, what is refused, and that a failure leaves nothing."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from components.artifacts.context import RunContext
from components.artifacts.evaluation import Confusion, read_evaluation
from components.artifacts.model_version import read_model_version, read_release
from components.artifacts.verdict import read_verdict
from components.deploy.promotion import approved_examples
from components.platform.registry import Registry, list_models
from components.register import mlflow as mlflow_adapter
from components.register import stage
from components.register.config import RegisterConfig
from components.register.stage import Passed, register
from pipelines.cli.app import run_app
from serving.detector.bundle import read_manifest, verify
from serving.platform.errors import BundleError, StageError
from serving.registry import resolve
from tests.bundles import make_bundle
from tests.releases import POLICY, RELEASE_FILES, judged, make_context, make_evaluation, registered, write_predictions


@pytest.fixture
def context(migrated: Path, tmp_path: Path) -> RunContext:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return make_context(tmp_path)


def test_version_holds_bundle_release_and_lineage(context: RunContext, toy_bundle: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, toy_bundle, context)
    manifest = read_manifest(toy_bundle)
    assert version.uri == f"models:/{context.model_name}/1"
    assert version == read_model_version(tmp_path / "model_version")
    assert version.bundle_digest == manifest.digest

    folder = resolve(f"models:/{context.model_name}@challenger", tmp_path / "cache", context.tracking_uri).folder
    assert verify(folder).digest == manifest.digest
    assert {path.name for path in (folder / "release").iterdir()} == RELEASE_FILES
    release = read_release(folder)
    assert (release.run_id, release.git_sha, release.data_fingerprint) == ("run-1", "a" * 40, "d" * 64)
    assert release.metrics["accuracy"].value == 0.94
    (row,) = list_models(context.tracking_uri, context.model_name)
    assert (row.version, row.aliases, row.git_sha, row.digest) == ("1", ("challenger",), "a" * 40, manifest.digest)
    assert row.metrics == {name: metric.value for name, metric in release.metrics.items()}


def test_card_says_figures_intervals_and_the_caveat(context: RunContext, toy_bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(toy_bundle)
    caveat = "Measured on the shipped sample: it proves the machinery, it is no detector for shop photos."
    evaluation = make_evaluation(tmp_path / "evaluation", manifest.digest, caveat)
    passed = Passed(toy_bundle, evaluation, judged(tmp_path / "verdict", evaluation), POLICY)
    register(passed, RegisterConfig(), context, tmp_path / "out")
    (card,) = (tmp_path / "artifacts").rglob("release/MODEL_CARD.md")
    text = card.read_text()
    assert f"> **{caveat}**" in text
    assert "| accuracy | 0.9400 | 0.9000 to 0.9700 |" in text
    assert "| generator = ldm | 50 | 0.9000 | 0.7900 to 0.9600 |" in text
    assert "PASSED: accuracy 94.0 %, F1 94.1 % on 200 test images" in text
    assert manifest.digest in text


def test_a_figure_that_only_a_later_version_knows_unmakes_no_verdict(
    context: RunContext, toy_bundle: Path, tmp_path: Path
) -> None:
    """As after an upgrade: what was judged before can be deployed, and come back."""
    evaluation = make_evaluation(tmp_path / "evaluation", read_manifest(toy_bundle).digest)
    document = json.loads((evaluation / "evaluation.json").read_text())
    del document["outside"], document["champion_note"], document["latency_ms"]
    (evaluation / "evaluation.json").write_text(json.dumps(document))
    written = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    verdict = judged(tmp_path / "verdict", evaluation)
    assert read_verdict(verdict).evaluation_sha256 == written, "as a version without these fields says"
    passed = Passed(toy_bundle, evaluation, verdict, POLICY)
    version = register(passed, RegisterConfig(), context, tmp_path / "out")
    assert approved_examples(version, tmp_path / "scratch")


def test_same_bundle_again_is_the_same_version(context: RunContext, toy_bundle: Path, tmp_path: Path) -> None:
    first = registered(tmp_path / "1", toy_bundle, context)
    again = registered(tmp_path / "2", toy_bundle, context)
    assert again == first
    assert len(list_models(context.tracking_uri, context.model_name)) == 1


def test_challenger_moves_to_the_newest(context: RunContext, toy_bundle: Path, tmp_path: Path) -> None:
    registered(tmp_path / "1", toy_bundle, context)
    registered(tmp_path / "2", make_bundle(tmp_path / "other", seed=5), context)
    newest, oldest = list_models(context.tracking_uri, context.model_name)
    assert (newest.version, newest.aliases) == ("2", ("challenger",))
    assert (oldest.version, oldest.aliases) == ("1", ())


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip_the_verdict(passed: Passed) -> Passed:
    """A refused evaluation whose verdict was flipped by hand."""
    policy = POLICY.model_copy(update={"min_accuracy": 0.99})
    shutil.rmtree(passed.verdict)
    judged(passed.verdict, passed.evaluation, policy)
    edit(passed.verdict / "verdict.json", '"passed":false', '"passed":true')
    return replace(passed, policy=policy)


def edit_the_policy_too(passed: Passed) -> Passed:
    """The verdict is what the gate says, but of a policy that is not the run's."""
    return replace(passed, policy=POLICY.model_copy(update={"min_accuracy": 0.99}))


def edit_the_accuracy(passed: Passed) -> Passed:
    edit(passed.evaluation / "evaluation.json", '"value": 0.94,', '"value": 0.99,')
    return passed


def add_a_false_positive_rate(passed: Passed) -> Passed:
    """Figures that the policy may ask for, though the toy evaluation has none."""
    edit(passed.evaluation / "evaluation.json", '"f1": {', '"fpr": {"value": 0.01}, "f1": {')
    return passed


def edit_a_figure_that_no_count_gives(passed: Passed) -> Passed:
    edit(passed.evaluation / "evaluation.json", '"bundle_bytes": 0', '"bundle_bytes": 1')
    return passed


def swap_the_predictions(passed: Passed) -> Passed:
    write_predictions(passed.evaluation, Confusion(true_real=100, false_ai=0, false_real=0, true_ai=100))
    return passed


def edit_accuracy_and_predictions_hash(passed: Passed) -> Passed:
    """Better verdicts and their hash, as whoever knows the format would forge them; the figures stay."""
    old = read_evaluation(passed.evaluation).predictions_sha256
    swap_the_predictions(passed)
    new = hashlib.sha256((passed.evaluation / "predictions.parquet").read_bytes()).hexdigest()
    edit(passed.evaluation / "evaluation.json", old, new)
    return passed


def evaluation_of_another(passed: Passed) -> Passed:
    shutil.rmtree(passed.evaluation)
    make_evaluation(passed.evaluation, "f" * 64)
    return passed


def verdict_of_another(passed: Passed) -> Passed:
    other = make_evaluation(passed.evaluation.with_name("other"), "f" * 64)
    shutil.rmtree(passed.verdict)
    return replace(passed, verdict=judged(passed.verdict, other))


def a_sentence_of_its_own(passed: Passed) -> Passed:
    edit(passed.verdict / "verdict.json", "PASSED: ", "PASSED with honours: ")
    return passed


def half_a_verdict(passed: Passed) -> Passed:
    path = passed.verdict / "verdict.json"
    path.write_text(path.read_text()[:-20])
    return passed


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (flip_the_verdict, "verdict's passed is not what the gate says .*REFUSED: accuracy 94"),
        (edit_the_policy_too, "verdict's policy is not what the gate says"),
        (edit_the_accuracy, "accuracy 0.99 does not follow from predictions.parquet, which gives 0.94"),
        (add_a_false_positive_rate, "fpr 0.01 does not follow from predictions.parquet, which gives 0.07"),
        (edit_a_figure_that_no_count_gives, "verdict's evaluation_sha256 is not what"),
        (swap_the_predictions, "not the verdicts that evaluation.json was made from"),
        (edit_accuracy_and_predictions_hash, "accuracy 0.94 does not follow from predictions.parquet, which gives 1"),
        (evaluation_of_another, "the evaluation is of bundle ffffffffffff"),
        (verdict_of_another, "the verdict is of bundle ffffffffffff"),
        (a_sentence_of_its_own, "verdict's headline is not what"),
        (half_a_verdict, "verdict.json: damaged or of another version"),
    ],
)
def test_what_was_forged_or_edited_is_not_registered(
    context: RunContext, toy_bundle: Path, tmp_path: Path, forge: Callable[[Passed], Passed], said: str
) -> None:
    evaluation = make_evaluation(tmp_path / "evaluation", read_manifest(toy_bundle).digest)
    passed = forge(Passed(toy_bundle, evaluation, judged(tmp_path / "verdict", evaluation), POLICY))
    with pytest.raises(StageError, match=rf"^not registered: .*{said}") as caught:
        register(passed, RegisterConfig(), context, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list_models(context.tracking_uri, context.model_name) == []
    assert not (tmp_path / "out").exists()


def test_a_refused_evaluation_is_not_registered(context: RunContext, toy_bundle: Path, tmp_path: Path) -> None:
    policy = POLICY.model_copy(update={"min_f1": 0.99})
    evaluation = make_evaluation(tmp_path / "evaluation", read_manifest(toy_bundle).digest)
    passed = Passed(toy_bundle, evaluation, judged(tmp_path / "verdict", evaluation, policy), policy)
    with pytest.raises(StageError, match=r"the gate did not pass it \(REFUSED: F1"):
        register(passed, RegisterConfig(), context, tmp_path / "out")


def test_a_release_record_changed_in_the_registry_is_refused(
    context: RunContext, toy_bundle: Path, tmp_path: Path
) -> None:
    registered(tmp_path, toy_bundle, context)
    (verdict,) = (tmp_path / "artifacts").rglob("release/verdict.json")
    edit(verdict, "94.0 %", "99.0 %")
    with pytest.raises(BundleError, match=r"the release record of version 1 .* was changed after its registration"):
        resolve(f"models:/{context.model_name}/1", tmp_path / "cache", context.tracking_uri)


def test_tampered_bundle_is_not_registered(context: RunContext, toy_bundle: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(toy_bundle, tmp_path / "changed")
    with (changed / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StageError, match=r"not registered: .*model.onnx: sha256"):
        registered(tmp_path, changed, context)
    assert list_models(context.tracking_uri, context.model_name) == []


def nothing_is_left(context: RunContext, tmp_path: Path, digest: str) -> None:
    assert list_models(context.tracking_uri, context.model_name) == []
    assert Registry(context.tracking_uri, context.model_name).aliased("challenger") is None
    assert not list((tmp_path / "artifacts").rglob(f"bundle-{digest[:12]}/*"))
    assert not (tmp_path / "model_version").exists()


def test_failure_after_the_version_was_made_leaves_nothing(
    context: RunContext, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "write_model_version", interrupted)
    with pytest.raises(KeyboardInterrupt):
        registered(tmp_path, toy_bundle, context)
    nothing_is_left(context, tmp_path, read_manifest(toy_bundle).digest)


def test_failure_while_files_are_stored_leaves_nothing(
    context: RunContext, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mlflow_adapter, "_ensure_model", full)
    with pytest.raises(StageError, match=r"nothing is left of it: .*No space left"):
        registered(tmp_path, toy_bundle, context)
    nothing_is_left(context, tmp_path, read_manifest(toy_bundle).digest)


def test_failure_leaves_the_old_challenger(
    context: RunContext, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(tmp_path / "1", toy_bundle, context)

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "write_model_version", failing)
    with pytest.raises(StageError, match=r"nothing is left of it: .*No space left"):
        registered(tmp_path / "2", make_bundle(tmp_path / "other", seed=5), context)
    (standing,) = list_models(context.tracking_uri, context.model_name)
    assert (standing.version, standing.aliases) == ("1", ("challenger",))


def test_no_registry_is_said(toy_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="set tracking_uri"):
        registered(tmp_path, toy_bundle, make_context(tmp_path, tracking_uri=""))


def test_the_verbs_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["register", "--bundle", str(tmp_path / "none"), "--evaluation", str(tmp_path), "--verdict", str(tmp_path)]
    assert run_app([*words, "--set", f"paths.workspace={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "no readable manifest.json" in error


def test_vertex_needs_its_place() -> None:
    with pytest.raises(ValueError, match=r"needs register.project, register.region, register.bucket"):
        RegisterConfig(vertex=True)
    with pytest.raises(ValueError, match="must start with gs://"):
        RegisterConfig(bucket="s3://x")
