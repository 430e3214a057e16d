"""Score the bundle as the server would, and write down everything that the gate and a reader need."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from components.artifacts.context import RunContext
from components.artifacts.dataset import TEST, UNSEEN, Dataset
from components.artifacts.evaluation import EVALUATION_JSON, CorruptionCell, Evaluation, write_evaluation
from components.evaluate import predictions, robustness
from components.evaluate.champion import Champion, find_champion, identical
from components.evaluate.compare import compare
from components.evaluate.config import EvaluateConfig
from components.evaluate.decisions import Decided
from components.evaluate.gallery import build_gallery
from components.evaluate.metrics import Judged, score_set, score_unseen
from components.evaluate.outside import outside_figures
from components.evaluate.plots import draw_all
from components.evaluate.progress import progress_bar
from components.evaluate.report import write_report
from components.evaluate.sample import caveat
from components.evaluate.scoring import Plan, SplitLogits, score_split
from components.evaluate.slices import Frame, groups, units_of
from components.platform.tracking import record
from serving.detector.detector import Detector
from serving.detector.labels import LABELS
from serving.platform.errors import BundleError, StageError


@dataclass(frozen=True)
class Bench:
    """What is set side by side: the images, the candidate and, where there is one, the champion."""

    data: Dataset
    test: Frame
    unseen: Frame | None
    candidate: Detector
    champion: Champion | None
    plan: Plan
    """Of the test split; on the unseen one only the candidate is scored."""


@dataclass(frozen=True)
class Scores:
    """Raw logits of the test split and, where there is one, of the unseen generators'."""

    test: SplitLogits
    unseen: SplitLogits | None


def evaluate(
    bundle: Path, dataset: Path, config: EvaluateConfig, context: RunContext, evaluation: Path, report: Path
) -> Evaluation:
    """Run the stage.

    Args:
        bundle: sealed bundle folder of the candidate.
        dataset: folder packed by verify_data.
        config: what to measure.
        context: the run it belongs to.
        evaluation: folder to write; `evaluation.json` comes last, so that a folder that has it is whole.
        report: HTML file to write.

    Raises:
        StageError: no usable bundle, dataset or champion, or no tracking server where one is named.
    """
    with TemporaryDirectory(prefix="champion-") as cache:
        bench, champion_note = _prepare(bundle, dataset, config, context, Path(cache))
    # first: a folder that is none should not cost the scoring of the test split
    outside = outside_figures(config.outside, bench.candidate) if config.outside else None
    scores = _score(bench, config)
    summary, verdicts = _summarise(bench, scores, config, context, champion_note)
    summary = summary.model_copy(update={"outside": outside})
    evaluation.mkdir(parents=True, exist_ok=True)
    predictions.write_predictions(evaluation, verdicts, config)
    judged = verdicts[0].judged
    plots = draw_all(summary, judged, config.calibration_bins)
    mistakes = build_gallery(bench.data, bench.test, judged, bench.candidate, config.gallery_images)
    write_report(report, evaluation, summary, plots, mistakes)
    summary = write_evaluation(evaluation, summary)
    record(
        context,
        metrics={f"evaluate/{k}": v for k, v in flat_metrics(summary).items()},
        files=[evaluation / EVALUATION_JSON, report],
        folder="evaluation",
    )
    return summary


def flat_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The figures that pipelines and trackers list, each a plain number: `test_accuracy`, `unseen_recall`, ..."""
    found = {f"test_{name}": metric.value for name, metric in evaluation.test.metrics.items()}
    if evaluation.unseen_generator is not None:
        found |= {f"unseen_{name}": metric.value for name, metric in evaluation.unseen_generator.metrics.items()}
    if evaluation.test.decisions is not None:
        found |= {f"test_{name.replace(' ', '_')}": share.value for name, share in evaluation.test.decisions.told}
    for cell in evaluation.robustness:
        found[f"robust_accuracy_{cell.corruption}_{cell.level}".replace(" ", "_")] = cell.accuracy.value
    for part in evaluation.outside.classes if evaluation.outside is not None else ():
        if part.confident_errors is not None:
            found[f"outside_confident_errors_{part.label}"] = part.confident_errors.value
    if evaluation.champion is not None:
        found["champion_accuracy_difference"] = evaluation.champion.accuracy_difference.value
    if evaluation.latency_ms is not None:
        found["latency_ms"] = evaluation.latency_ms
    return found


def _prepare(
    bundle: Path, dataset: Path, config: EvaluateConfig, context: RunContext, cache_dir: Path
) -> tuple[Bench, str]:
    try:
        candidate, data = Detector.load(bundle), Dataset(dataset)
    except BundleError as error:
        raise StageError(f"{error}; run the stage that makes it again") from error
    test = _test_frame(data)
    champion, note = find_champion(config, context, cache_dir)
    detectors = [candidate] if champion is None else [candidate, champion.detector]
    plan = Plan(detectors, robustness.grid(config), robustness.subsample(test.positive, config))
    unseen = Frame.read(data, UNSEEN) if data.has(UNSEEN) else None
    return Bench(data, test, unseen, candidate, champion, plan), note


def _test_frame(data: Dataset) -> Frame:
    if not data.has(TEST):
        raise StageError(f"{data.folder}: no {TEST} split; evaluate needs images that training never saw")
    test = Frame.read(data, TEST)
    for label, there in zip(LABELS, (not test.positive.all(), test.positive.any()), strict=True):
        if not there:
            raise StageError(f"{data.folder}: the {TEST} split has no {label} image; error rates need both classes")
    return test


def _score(bench: Bench, config: EvaluateConfig) -> Scores:
    alone = Plan([bench.candidate])
    total = bench.plan.forward_passes(len(bench.test))
    total += alone.forward_passes(len(bench.unseen)) if bench.unseen else 0
    with progress_bar("Scoring images", total) as advance:
        test = score_split(bench.data, bench.test, bench.plan, config, advance)
        unseen = score_split(bench.data, bench.unseen, alone, config, advance) if bench.unseen else None
    return Scores(test, unseen)


def _summarise(
    bench: Bench, scores: Scores, config: EvaluateConfig, context: RunContext, champion_note: str
) -> tuple[Evaluation, list[predictions.ModelVerdicts]]:
    manifest = bench.candidate.manifest
    parts = groups(bench.test, config.slice_min_images)
    units, *of_unseen = units_of(*(frame for frame in (bench.test, bench.unseen) if frame is not None))
    distinct = bench.test.distinct
    candidate = Judged.of(bench.test.positive, scores.test.clean[0], bench.candidate.rule, units)
    decided = _decided(bench.candidate, candidate, scores.test)
    verdicts = [predictions.ModelVerdicts(predictions.CANDIDATE, bench.test, candidate, decided=decided)]
    comparison = unseen_figures = None
    if bench.champion is not None:
        champion = Judged.of(bench.test.positive, scores.test.clean[1], bench.champion.detector.rule, units)
        verdicts.append(predictions.ModelVerdicts(predictions.CHAMPION, bench.test, champion))
        comparison = compare(
            candidate,
            champion,
            parts,
            config,
            champion_version=bench.champion.version,
            identical=identical(manifest, bench.champion.detector.manifest),
            distinct=distinct,
        )
    if bench.unseen is not None and scores.unseen is not None:
        unseen = Judged.of(bench.unseen.positive, scores.unseen.clean[0], bench.candidate.rule, of_unseen[0])
        of_newcomers = _decided(bench.candidate, unseen, scores.unseen)
        verdicts.append(predictions.ModelVerdicts(predictions.CANDIDATE, bench.unseen, unseen, decided=of_newcomers))
        unseen_figures = score_unseen(
            unseen, candidate, groups(bench.unseen, config.slice_min_images), config, bench.unseen.distinct
        ).model_copy(update={"decisions": of_newcomers.figures()})
    cells, corrupted = _robustness(bench, scores.test, candidate, config)
    evaluation = Evaluation(
        run_id=context.run_id,
        bundle_digest=manifest.digest,
        data_fingerprint=bench.data.summary.fingerprint,
        test_fingerprint=bench.data.summary.splits[TEST].fingerprint,
        threshold=bench.candidate.rule.threshold,
        test=score_set(candidate, parts, config, distinct).model_copy(update={"decisions": decided.figures()}),
        unseen_generator=unseen_figures,
        robustness=cells,
        robustness_note=robustness.note(len(bench.plan.grid_rows), len(bench.test)) if bench.plan.cells else "",
        champion=comparison,
        champion_note=champion_note,
        caveat=caveat(bench.data.summary.source_uri, bench.test.generator),
        latency_ms=_latency_ms(bench, config),
        bundle_bytes=sum((bench.candidate.folder / name).stat().st_size for name in manifest.files),
    )
    return evaluation, [*verdicts, *corrupted]


def _decided(detector: Detector, judged: Judged, logits: SplitLogits) -> Decided:
    return Decided(judged, detector.bands(), logits.outside_by, detector.manifest.domain)


def _robustness(
    bench: Bench, logits: SplitLogits, candidate: Judged, config: EvaluateConfig
) -> tuple[list[CorruptionCell], list[predictions.ModelVerdicts]]:
    rows = bench.plan.grid_rows
    positive, clean, units = bench.test.positive[rows], candidate.take(rows), bench.test.units[rows]
    rules = [detector.rule for detector in bench.plan.detectors]
    cells, verdicts = [], []
    for index, corruption in enumerate(bench.plan.cells):
        judged: Sequence[Judged] = [
            Judged.of(positive, of_model[index], rule, units)
            for of_model, rule in zip(logits.corrupted, rules, strict=True)
        ]
        champion = judged[1] if len(judged) > 1 else None
        name, level = corruption.name, corruption.label
        cells.append(robustness.cell(name, level, clean, judged[0], champion, config))
        verdicts += [
            predictions.ModelVerdicts(model, bench.test, of_model, rows, f"{name} {level}")
            for model, of_model in zip((predictions.CANDIDATE, predictions.CHAMPION), judged, strict=False)
        ]
    return cells, verdicts


def _latency_ms(bench: Bench, config: EvaluateConfig) -> float:
    """Median time of one image through the engine, in milliseconds; the image is already preprocessed."""
    image = bench.candidate.pixels(next(bench.data.images(TEST)))[None]
    times_ms = []
    for _ in range(config.latency_runs):
        start = time.perf_counter()
        bench.candidate.logits(image)
        times_ms.append((time.perf_counter() - start) * 1000)
    return float(np.median(times_ms))
