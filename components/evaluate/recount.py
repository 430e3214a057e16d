"""An evaluation held against the verdicts that it was made from: every figure that follows from them is made again.

The verdicts' file says how intervals, bins and slices were made of its rows, and the evaluation names the file by its
hash: of what stands in `evaluation.json` only the folder outside the data, the time of an image and the bundle's size
have no rows behind them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts.dataset import TEST, UNSEEN
from components.artifacts.evaluation import (
    CANDIDATE,
    EVALUATION_JSON,
    PREDICTIONS_PARQUET,
    CorruptionCell,
    DecisionFigures,
    Evaluation,
    ScoreSet,
    check_evaluation,
)
from components.evaluate import robustness
from components.evaluate.compare import compare
from components.evaluate.config import EvaluateConfig
from components.evaluate.decisions import SIGNALS, figures_of
from components.evaluate.metrics import Judged, score_set, score_unseen
from components.evaluate.predictions import CHAMPION, DRAWN, corrupted
from components.evaluate.slices import Frame, groups, units_of
from serving.detector.conclusion import DECISIONS
from serving.detector.decision import CONFIDENCES
from serving.detector.labels import LABELS
from serving.platform.errors import StageError, one_line

_CLOSE: Final = 1e-6
"""Two processors add up many numbers with other roundings; nobody edits a figure by so little."""
_COLUMNS: Final = ("model", "split", "row", "label", "prediction", "confidence", "probability", "logit")
_OF_DECISIONS: Final = ("decision", "outside_by")
"""Missing where decisions were not counted yet."""
_OF_IMAGES: Final = ("generator", "source", "pixel_sha256", "shorter_side_px")
_MOST_DRAWS: Final = 1_000_000


def check_figures(folder: Path) -> Evaluation:
    """Read an evaluation, and believe no figure that its verdicts do not give.

    A file of verdicts from before it said how figures are made of it gives the counted ones only.

    Raises:
        StageError: it is no evaluation, its verdicts are others', or one of its figures does not follow from them.
    """
    said = check_evaluation(folder)
    made = made_again(folder, said)
    found = first_difference(made, said.model_dump(mode="json", include=set(made)))
    if found is not None:
        name, ours, theirs = found
        raise StageError(
            f"{folder / EVALUATION_JSON}: {name} {theirs} does not follow from {PREDICTIONS_PARQUET}, which gives "
            f"{ours}: it was edited; run evaluate again"
        )
    return said


def made_again(folder: Path, said: Evaluation) -> dict[str, Any]:
    """The parts of `evaluation.json` that follow from the verdicts beside it; none where these do not say how.

    Args:
        folder: the evaluation folder.
        said: what stands in it, of which the champion's version and the threshold are taken.

    Raises:
        StageError: the verdicts cannot be read.
    """
    path = folder / PREDICTIONS_PARQUET
    try:
        drawn = (pq.read_schema(path).metadata or {}).get(DRAWN)
        if drawn is None:
            return {}
        config = EvaluateConfig.model_validate_json(drawn)
        if max(config.bootstrap_draws, config.paired_draws) > _MOST_DRAWS:
            raise ValueError(f"more than {_MOST_DRAWS:,} draws")
        wanted = [*_COLUMNS, *_OF_IMAGES, *(name for name in _OF_DECISIONS if name in pq.read_schema(path).names)]
        return _made_again(said, _Verdicts(pq.read_table(path, columns=wanted)), config)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise StageError(f"{path}: damaged or of another version: {one_line(error)}; run evaluate again") from error


class _Verdicts:
    """The rows of `predictions.parquet`, by model and split."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        kinds = table.select(["model", "split"]).group_by(["model", "split"], use_threads=False).aggregate([])
        self._kinds = [(row["model"], row["split"]) for row in kinds.to_pylist()]

    @property
    def cells(self) -> list[str]:
        """Corruptions and levels in the order of the file."""
        start = corrupted(TEST, "")
        mine = (split for model, split in self._kinds if model == CANDIDATE)
        return [split.removeprefix(start) for split in mine if split.startswith(start)]

    def has(self, model: str, split: str) -> bool:
        """Whether the model judged the split."""
        return (model, split) in self._kinds

    def _part(self, model: str, split: str) -> pa.Table:
        if not self.has(model, split):
            raise ValueError(f"no verdicts of the {model} on {split}")
        table = self._table
        return table.filter(pc.and_(pc.equal(table["model"], model), pc.equal(table["split"], split)))

    def frame(self, split: str) -> Frame:
        """What is known of a split's images."""
        part = self._part(CANDIDATE, split)
        texts = {name: [text or "" for text in part.column(name).to_pylist()] for name in _OF_IMAGES[:-1]}
        return Frame(
            split=split,
            positive=_is_ai(part, "label"),
            path=[""] * len(part),
            shorter_side_px=np.asarray(part.column("shorter_side_px").to_numpy(), dtype=np.int64),
            **texts,
        )

    def rows(self, split: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Which images of its split were judged."""
        return np.asarray(self._part(CANDIDATE, split).column("row").to_numpy(), dtype=np.int64)

    def judged(self, model: str, split: str, units: Any, threshold: float) -> Judged:
        """What a model said of a split.

        Raises:
            ValueError: it did not judge it, or said what no model of ours says.
        """
        part = self._part(model, split)
        confidence = tuple(part.column("confidence").to_pylist())
        if not set(confidence) <= set(CONFIDENCES):
            raise ValueError("an unknown confidence")
        return Judged(
            positive=_is_ai(part, "label"),
            logits=np.asarray(part.column("logit").to_numpy(), dtype=np.float64),
            probabilities=np.asarray(part.column("probability").to_numpy(), dtype=np.float64),
            predicted=_is_ai(part, "prediction"),
            confidence=confidence,
            threshold=threshold,
            units=units,
        )

    def decided(self, judged: Judged, split: str, said: ScoreSet | None) -> DecisionFigures | None:
        """What the candidate's decisions on a split come to; of what is said the promises are taken.

        Raises:
            ValueError: a decision or a signal that no model of ours makes, or a decision where the photo is outside.
        """
        part = self._part(CANDIDATE, split)
        if not set(_OF_DECISIONS) <= set(part.column_names):
            return None
        decisions = np.array(part.column("decision").to_pylist(), dtype=object)
        texts: list[str | None] = part.column("outside_by").to_pylist()
        named = [set((text or "").split()) for text in texts]
        known = None not in texts
        if (
            not set(decisions) <= set(DECISIONS)
            or not set().union(*named) <= set(SIGNALS)
            or (not known and any(text is not None for text in texts))
        ):
            raise ValueError("an unknown decision or signal")
        outside_by = np.array([[name in names for names in named] for name in SIGNALS], dtype=bool)
        if (decisions[outside_by.any(axis=0)] != DECISIONS[1]).any():
            raise ValueError("a decision on a photo outside the domain")
        stated = None if said is None else said.decisions
        promised = (None, None) if stated is None else (stated.promised_real, stated.promised_ai)
        return figures_of(judged.positive, judged.units, decisions, outside_by if known else None, promised)


def _is_ai(part: pa.Table, column: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    names = part[column]
    if not pc.all(pc.is_in(names, value_set=pa.array(LABELS))).as_py():
        raise ValueError(f"a {column} that is none of {', '.join(LABELS)}")
    return np.asarray(pc.equal(names, LABELS[1]).to_numpy(), dtype=bool)


@dataclass(frozen=True)
class _Test:
    """The test split as both models saw it."""

    frame: Frame
    units: Any
    candidate: Judged
    champion: Judged | None


def _made_again(said: Evaluation, verdicts: _Verdicts, config: EvaluateConfig) -> dict[str, Any]:
    """The parts of an evaluation that follow from its verdicts, as its document has them."""
    frame = verdicts.frame(TEST)
    unseen_frame = verdicts.frame(UNSEEN) if verdicts.has(CANDIDATE, UNSEEN) else None
    units, *of_unseen = units_of(*(part for part in (frame, unseen_frame) if part is not None))
    candidate = verdicts.judged(CANDIDATE, TEST, units, said.threshold)
    champion = verdicts.judged(CHAMPION, TEST, units, said.threshold) if verdicts.has(CHAMPION, TEST) else None
    test = _Test(frame, units, candidate, champion)
    made: dict[str, Any] = {
        "threshold": _threshold(said.threshold, candidate),
        "test": score_set(candidate, groups(frame, config.slice_min_images), config, frame.distinct).model_copy(
            update={"decisions": verdicts.decided(candidate, TEST, said.test)}
        ),
        "unseen_generator": None,
        "champion": None,
        "robustness": [_cell(name, test, verdicts, config) for name in _cells(said, verdicts)],
    }
    if unseen_frame is not None:
        unseen = verdicts.judged(CANDIDATE, UNSEEN, of_unseen[0], said.threshold)
        parts = groups(unseen_frame, config.slice_min_images)
        figures = score_unseen(unseen, candidate, parts, config, unseen_frame.distinct)
        decided = verdicts.decided(unseen, UNSEEN, said.unseen_generator)
        made["unseen_generator"] = figures.model_copy(update={"decisions": decided})
    if champion is not None:
        stated = said.champion
        made["champion"] = compare(
            candidate,
            champion,
            groups(frame, config.slice_min_images),
            config,
            champion_version="" if stated is None else stated.champion_version,
            identical=stated is not None and stated.identical,
            distinct=frame.distinct,
        )
    return {name: _document(part) for name, part in made.items()}


def _threshold(said: float, candidate: Judged) -> float | str:
    """What is said, where it parts the verdicts as they were given."""
    if np.array_equal(candidate.probabilities >= said, candidate.predicted):
        return said
    return "another one"


def _cells(said: Evaluation, verdicts: _Verdicts) -> list[tuple[str, str]]:
    """Corruption and level of each cell: words of the evaluation where these are the file's."""
    stated = {f"{cell.corruption} {cell.level}": (cell.corruption, cell.level) for cell in said.robustness}
    return [stated.get(name) or (name.partition(" ")[0], name.partition(" ")[2]) for name in verdicts.cells]


def _cell(cell: tuple[str, str], test: _Test, verdicts: _Verdicts, config: EvaluateConfig) -> CorruptionCell:
    split = corrupted(TEST, " ".join(cell))
    rows = verdicts.rows(split)
    units, threshold = test.units[rows], test.candidate.threshold
    mine = verdicts.judged(CANDIDATE, split, units, threshold)
    other = None if test.champion is None else verdicts.judged(CHAMPION, split, units, threshold)
    return robustness.cell(*cell, test.candidate.take(rows), mine, other, config)


def _document(part: Any) -> Any:
    if isinstance(part, list):
        return [_document(item) for item in part]
    return part.model_dump(mode="json") if hasattr(part, "model_dump") else part


def first_difference(ours: Any, theirs: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first figure in which two documents differ: its name, ours and theirs."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs}):
            where = f"{name}.{key}" if name else key
            found = first_difference(ours.get(key, "nothing"), theirs.get(key, "nothing"), where)
            if found is not None:
                return found
        return None
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        if len(ours) != len(theirs):
            return f"{name}: the number of entries", len(ours), len(theirs)
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next((d for i, pair in pairs if (d := first_difference(*pair, f"{name}[{i}]")) is not None), None)
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return None if isclose(ours, theirs, rel_tol=_CLOSE, abs_tol=_CLOSE) else (name, f"{ours:g}", f"{theirs:g}")
    return None if ours == theirs else (name, _short(ours), _short(theirs))


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:60] if not isinstance(value, Mapping) else "a figure"
