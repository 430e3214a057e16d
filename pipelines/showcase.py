"""One photo of the test split with its verdict and heatmap: what a run ends with."""

from dataclasses import dataclass
from pathlib import Path

from components.artifacts.dataset import TEST, Dataset
from pipelines.runs import RunRecord
from serving.detector.decision import Verdict
from serving.detector.detector import Detector
from serving.detector.labels import LABELS, POSITIVE, Label

_SIDE_PX = 512
_SCANNED = 64


@dataclass(frozen=True)
class Showcase:
    """One explained prediction."""

    photo: Path
    truth: Label
    verdict: Verdict
    explained_class: Label
    picture: Path


def show_one(record: RunRecord) -> Showcase | None:
    """Explain the first generated photo of the test split with the run's own bundle; files go to the run's folder.

    None where the run made no version, or its data and bundle do not lie on this disk.
    """
    if record.status not in ("deployed", "registered") or not record.stage("train").output_dir:
        return None
    dataset = Dataset(record.output("verify_data", "dataset"))
    detector = Detector.load(record.output("train", "bundle"))
    batch = next(dataset.batches(TEST, rows=_SCANNED, columns=["image", "label"]))
    labels = batch.column("label").to_pylist()
    wanted = LABELS.index(POSITIVE)
    index = labels.index(wanted) if wanted in labels else 0
    data: bytes = batch.column("image").field("bytes")[index].as_py()
    explanation = detector.explain(data, side_px=_SIDE_PX)
    judgement = explanation.judgement
    photo = Path(record.folder) / f"photo.{judgement.info.format.lower().replace('jpeg', 'jpg')}"
    picture = Path(record.folder) / "explanation.png"
    photo.write_bytes(data)
    picture.write_bytes(explanation.drawn.overlay)
    return Showcase(photo, LABELS[labels[index]], judgement.verdict, explanation.explained_class, picture)
