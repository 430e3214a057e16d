"""Stage train: a packed dataset in, a sealed bundle out."""

import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from components.artifacts.context import RunContext
from components.artifacts.dataset import Dataset
from components.platform.signals import sigterm_raises
from components.train.checkpoint import Checkpoints
from components.train.config import Launch, TrainConfig
from components.train.curves import curves_html
from components.train.dataset import (
    Decoded,
    Validation,
    check_disk,
    decode_train,
    decode_validation,
    open_train,
    open_validation,
)
from components.train.distributed import Ranks, joined
from components.train.export import export_bundle, publish
from components.train.loop import Fitted, Trainer, prepare_device
from components.train.model import build, local_path
from components.train.tracking import Tracker
from serving.detector.bundle import MANIFEST, MODEL_CARD
from serving.platform.cores import usable_cores
from serving.platform.errors import StageError


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a training came to; the figures are those of the validation split."""

    digest: str
    architecture: str
    input_px: int
    epochs: int
    best_epoch: int
    resumed_from_epoch: int
    val_accuracy: float
    val_roc_auc: float
    val_log_loss: float
    log_loss_calibrated: float
    temperature: float
    bias: float
    threshold: float
    onnx_parity: float
    head_gap: float
    images_per_s: float
    seconds: float

    def figures(self) -> dict[str, float]:
        """The numbers among it, by name."""
        return {name: float(value) for name, value in asdict(self).items() if not isinstance(value, str)}


def train(
    dataset: Path, out: Path, config: TrainConfig, context: RunContext, curves: Path | None = None
) -> TrainSummary | None:
    """Train on a packed dataset and write a bundle.

    Args:
        dataset: folder packed by verify_data.
        out: the bundle's folder; must be empty or absent. It gets its manifest last, so whatever interrupts the
            training leaves nothing that passes for a bundle.
        config: the knobs.
        context: the run this belongs to.
        curves: where to write the training curves (HTML).

    Returns:
        The summary; None on the processes of a `torchrun` that are not the main one.

    Raises:
        StageError: bad data, configuration or weights, a diverged training, or an export that does not reproduce.
    """
    started = time.monotonic()
    if (out / MANIFEST).exists():
        raise StageError(f"{out}: there is a bundle already; give an empty folder")
    packed = Dataset(dataset)
    # SIGTERM is how a container is preempted: the decoded images must not stay on its disk
    with sigterm_raises(), joined(Launch.from_environment(), config.device) as ranks:
        prepare_device(config, ranks, usable_cores())
        scratch = Path(ranks.share_here(_scratch(config) if ranks.is_first_here else ""))
        try:
            return _train(packed, out, config, context, curves, ranks, scratch, started)
        finally:
            if ranks.is_first_here:
                shutil.rmtree(scratch, ignore_errors=True)


def _train(
    dataset: Dataset,
    out: Path,
    config: TrainConfig,
    context: RunContext,
    curves: Path | None,
    ranks: Ranks,
    scratch: Path,
    started: float,
) -> TrainSummary | None:
    network = build(config)  # first: a wrong architecture or missing weights should not cost a decoding of the data
    tracker = Tracker(context)
    if ranks.is_main:
        tracker.start(config, dataset.summary.fingerprint)
    data, validation = _decode(dataset, scratch, config, ranks)
    root = local_path(config.checkpoint_dir) if config.checkpoint_dir else None
    checkpoints = Checkpoints.of(root, config, dataset.summary.fingerprint, ranks.world_size)
    fitted = Trainer(network, data, validation, config, ranks).run(checkpoints, tracker.epoch)
    if not ranks.is_main:
        return None
    threads = config.threads or usable_cores()
    folder = scratch / "bundle"
    exported = export_bundle(folder, network, fitted, dataset, validation, config, context, threads)
    best = _record_of_best(fitted)
    summary = TrainSummary(
        digest=exported.manifest.digest,
        architecture=config.architecture,
        input_px=config.input_px,
        epochs=len(fitted.history),
        best_epoch=fitted.best_epoch,
        resumed_from_epoch=fitted.resumed_from,
        val_accuracy=best["val_accuracy"],
        val_roc_auc=best["val_roc_auc"],
        val_log_loss=best["val_log_loss"],
        log_loss_calibrated=exported.calibration.log_loss_after,
        temperature=exported.calibration.rule.temperature,
        bias=exported.calibration.rule.bias,
        threshold=exported.calibration.rule.threshold,
        onnx_parity=exported.parity,
        head_gap=exported.head_gap,
        images_per_s=best["images_per_s"],
        seconds=time.monotonic() - started,
    )
    page = scratch / "curves.html"
    facts = [
        (name.replace("_", " "), f"{v:.6g}" if isinstance(v, float) else str(v)) for name, v in asdict(summary).items()
    ]
    page.write_text(curves_html(fitted.history, fitted.best_epoch, facts), encoding="utf-8")
    publish(folder, out)
    if curves is not None:
        curves.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, curves)
    tracker.finish(summary.figures(), [page, out / MODEL_CARD])
    checkpoints.clear()
    return summary


def _decode(dataset: Dataset, scratch: Path, config: TrainConfig, ranks: Ranks) -> tuple[Decoded, Validation]:
    """Decode this machine's part on its first process, share it with the others through the memory-mapped files."""
    if ranks.is_first_here:
        check_disk(dataset, scratch, config, ranks.part)
        data = decode_train(dataset, scratch, config, ranks.part)
        validation = decode_validation(dataset, scratch, config, ranks.part)
        ranks.barrier()
        return data, validation
    ranks.barrier()
    return open_train(dataset, scratch, config, ranks.part), open_validation(dataset, scratch, config)


def _record_of_best(fitted: Fitted) -> dict[str, float]:
    return next(record for record in fitted.history if record["epoch"] == fitted.best_epoch)


def _scratch(config: TrainConfig) -> str:
    if config.scratch_dir:
        Path(config.scratch_dir).mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix="aidetect-train-", dir=config.scratch_dir or None)
