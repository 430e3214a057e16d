"""The training loop: AdamW, warm-up and cosine, averaged weights, early stopping; the same on CPU, CUDA and many ranks.

Nothing random is carried from step to step: every draw comes from a generator seeded by (seed, epoch or step, rank),
so a training resumed from a checkpoint takes the very steps it would have taken.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from components.train.checkpoint import Checkpoints
from components.train.config import TrainConfig
from components.train.dataset import Batch, Decoded, Validation, batches, epoch_order
from components.train.distributed import Ranks
from components.train.model import Network, features_and_logit, freeze, normalise, resize
from components.train.pairs import paired_order
from components.train.progress import progress
from components.train.shards import scored_by
from serving.detector.engine import Floats
from serving.platform.errors import StageError, one_line

EpochRecord = dict[str, float]
"""One line of the history: epoch, side_px, learning_rate, train_loss, val_log_loss, val_accuracy, val_roc_auc, ..."""

_CHECK_EVERY: int = 20
"""Steps between looks at the loss on CUDA, where each look waits for the device."""
_VALIDATION_BATCH, _VALIDATION_BATCH_CPU = 128, 16
"""Images at a time. On a CPU more are no quicker, and their activations stay: at 192 px 128 images took 1.7 GB."""


@dataclass(slots=True)
class _Best:
    epoch: int = -1
    roc_auc: float = -math.inf
    weights: dict[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A finished training: the averaged weights of its best epoch, and how it went."""

    model: nn.Module
    """On the CPU, in evaluation mode."""
    best_epoch: int
    history: list[EpochRecord]
    resumed_from: int
    """Epochs that were already done when this process started."""


class Trainer:
    """A network, its data and everything that changes while it trains."""

    def __init__(
        self, network: Network, train: Decoded, validation: Validation, config: TrainConfig, ranks: Ranks
    ) -> None:
        from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # timm re-exports it without saying so
        from timm.scheduler import CosineLRScheduler  # type: ignore[attr-defined]  # timm re-exports it without saying so
        from timm.utils import ModelEmaV3  # type: ignore[attr-defined]  # timm re-exports it without saying so

        self._network, self._train, self._validation = network, train, validation
        self._config, self._ranks = config, ranks
        self._batch = config.batch_size // ranks.world_size
        if config.pairs and self._batch % 2:
            raise StageError(
                f"train.pairs needs an even share of train.batch_size for each of {ranks.world_size} processes, "
                f"not {self._batch}"
            )
        # pairs are shared out whole, and an odd image is left out
        images = len(self._order(0))
        self._steps = images // self._batch if self._batch else 0
        if self._steps == 0:
            raise StageError(
                f"{len(train.labels) * ranks.part.machines} training images do not fill one batch of "
                f"{config.batch_size} on {ranks.world_size} process(es); lower train.batch_size"
            )
        self._model = network.model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this overload
        self._frozen_norms = freeze(self._model, config.frozen_layers)
        self._ema = ModelEmaV3(self._model, decay=config.ema_decay, use_warmup=True)
        self._optimizer: torch.optim.Optimizer = create_optimizer_v2(
            self._model,
            opt="adamw",
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            fused=True,
        )
        total = self._steps * config.epochs
        self._schedule = CosineLRScheduler(
            self._optimizer,
            t_initial=total,
            lr_min=config.learning_rate * 0.01,
            warmup_t=min(round(config.warmup_epochs * self._steps), max(0, total - 1)),
            warmup_lr_init=config.learning_rate * 0.01,
            t_in_epochs=False,
        )
        self._autocast = _autocast_dtype(config, ranks.device)
        self._scaler = torch.amp.GradScaler(ranks.device.type, enabled=self._autocast == torch.float16)
        self._ranked: nn.Module = DistributedDataParallel(self._model) if ranks.world_size > 1 else self._model
        self._positive_weight = torch.tensor(_positive_weight(train, config), device=ranks.device)
        self._epoch, self._stale = 0, 0
        self._best = _Best()
        self._history: list[EpochRecord] = []

    def run(self, checkpoints: Checkpoints, on_epoch: Callable[[EpochRecord], None]) -> Fitted:
        """Train from the last checkpoint, or from the start, to the end.

        Args:
            checkpoints: where to resume from and to save to, after every epoch.
            on_epoch: told of every epoch, the resumed ones included; called on the main process only.

        Raises:
            StageError: the loss is no longer a number.
        """
        self._resume(checkpoints)
        resumed_from = self._epoch
        config = self._config
        if self._ranks.is_main:
            for record in self._history:
                on_epoch(record)
        with progress(self._work(config.epochs), self._work(self._epoch), self._ranks.is_main) as shown:
            if resumed_from:
                shown.say(f"resumed after epoch {resumed_from} of {config.epochs}")
            while self._epoch < config.epochs and not self._exhausted():
                record = self._one_epoch(shown.advance)
                self._history.append(record)
                self._remember_best(record)
                self._epoch += 1
                if self._ranks.is_main:
                    checkpoints.save(self._state())
                    on_epoch(record)
                    shown.say(_sentence(record, config))
                self._ranks.barrier()
        best = copy.deepcopy(self._ema.module)
        if self._best.weights is not None:
            best.load_state_dict(self._best.weights)
        # plain strides again: what is exported and stored does not depend on where it was trained
        model = best.to("cpu", memory_format=torch.contiguous_format).eval()
        return Fitted(model, self._best.epoch, self._history, resumed_from)

    def _one_epoch(self, advance: Callable[[int, int, int, float | None], None]) -> EpochRecord:
        config, ranks, epoch = self._config, self._ranks, self._epoch
        side_px = config.side_px(epoch)
        self._ranked.train()
        for norm in self._frozen_norms:
            norm.eval()
        order = self._order(epoch)
        key = (config.seed, epoch, ranks.rank)
        total = torch.zeros((), device=ranks.device)
        started = time.perf_counter()
        on_cpu = ranks.device.type == "cpu"
        for number, batch in enumerate(
            batches(self._train, order, self._batch, key, config.augment, config.loader_threads, config.part)
        ):
            step = epoch * self._steps + number
            loss = self._step(batch, step, side_px)
            total += loss
            value = float(loss) if on_cpu or number % _CHECK_EVERY == 0 or number == self._steps - 1 else None
            if value is not None and not math.isfinite(value):
                raise StageError(
                    f"the loss became {value} in epoch {epoch + 1}, step {number + 1}; lower train.learning_rate "
                    f"(now {config.learning_rate:g}) or train.grad_clip_norm, or set train.amp=off"
                )
            advance(side_px**2, epoch, config.epochs, value)
        seconds = time.perf_counter() - started
        return {
            "epoch": epoch + 1,
            "side_px": side_px,
            "learning_rate": max(group["lr"] for group in self._optimizer.param_groups),
            "train_loss": float(total) / self._steps,
            "train_seconds": seconds,
            "images_per_s": self._steps * self._batch * ranks.world_size / seconds,
            **self._validate(),
        }

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of this process, of those that its machine keeps and shares out among its own processes."""
        train, seed = self._train, self._config.seed
        place = self._ranks.local_rank, self._ranks.local_world_size
        if self._config.pairs:
            return paired_order(train.sources, train.labels, (seed, epoch), *place)
        return epoch_order(len(train.labels), epoch, seed, *place)

    def _step(self, batch: Batch, step: int, side_px: int) -> Tensor:
        config, device = self._config, self._ranks.device
        torch.manual_seed(_step_seed(config.seed, step, self._ranks.rank))
        self._schedule.step_update(step)
        pixels, labels = (_to_device(array, device) for array in (batch.pixels, batch.labels))
        x = normalise(resize(pixels, side_px), self._network)
        targets = labels * (1 - config.label_smoothing) + config.label_smoothing / 2
        with torch.autocast(device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
            logits = self._ranked(x).squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=self._positive_weight)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # Tensor.backward has no types
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_((p for p in self._model.parameters() if p.requires_grad), config.grad_clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._ema.update(self._model, step=step + 1)
        return loss.detach()

    def _validate(self) -> EpochRecord:
        ranks, labels, inputs = self._ranks, self._validation.labels, self._validation.inputs
        shard = scored_by(len(inputs), ranks.part, ranks.local_rank)
        logits = ranks.interleave(score(self._ema.module, self._network, inputs, shard, ranks.device), len(labels))
        return validation_metrics(logits, labels)

    def _remember_best(self, record: EpochRecord) -> None:
        if self._config.at_low_resolution(self._epoch):
            return
        # not the log-loss: it punishes confidence that the calibration afterwards takes away
        if record["val_roc_auc"] > self._best.roc_auc:
            weights = {name: value.detach().clone() for name, value in self._ema.module.state_dict().items()}
            self._best = _Best(self._epoch + 1, record["val_roc_auc"], weights)
            self._stale = 0
        else:
            self._stale += 1

    def _work(self, epochs: int) -> int:
        return sum(self._steps * self._config.side_px(epoch) ** 2 for epoch in range(epochs))

    def _exhausted(self) -> bool:
        patience = self._config.early_stopping_patience
        return bool(patience) and self._stale >= patience

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "stale": self._stale,
            "model": self._model.state_dict(),
            "ema": self._ema.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": {"epoch": self._best.epoch, "roc_auc": self._best.roc_auc, "weights": self._best.weights},
            "history": self._history,
        }

    def _resume(self, checkpoints: Checkpoints) -> None:
        state = checkpoints.load()
        if state is None:
            return
        try:
            self._model.load_state_dict(state["model"])
            self._ema.module.load_state_dict(state["ema"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            self._best = _Best(**state["best"])
            self._epoch, self._stale, self._history = state["epoch"], state["stale"], state["history"]
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            reason = one_line(error)
            raise StageError(
                f"{checkpoints.folder}: the checkpoint does not fit ({reason}); delete it to start anew"
            ) from error


@torch.no_grad()
def score(model: nn.Module, network: Network, inputs: Any, rows: Any, device: torch.device) -> Floats:
    """Logits (len(rows),), each the mean of its views, in evaluation mode and full precision.

    `inputs`: uint8 (n, views, side, side, 3), already at the input size; `rows`: of them.
    """
    model.eval()
    logits, views = [], inputs.shape[1]
    images = max(1, (_VALIDATION_BATCH_CPU if device.type == "cpu" else _VALIDATION_BATCH) // views)
    for start in range(0, len(rows), images):
        chosen = np.ascontiguousarray(inputs[rows[start : start + images]])
        pixels = _to_device(chosen.reshape(-1, *chosen.shape[2:]), device)
        x = normalise(resize(pixels, pixels.shape[1]), network)
        logits.append(features_and_logit(model, x)[1].float().reshape(-1, views).mean(dim=1).cpu())
    return cast("Floats", torch.cat(logits).numpy()) if logits else np.empty(0, dtype=np.float32)


def validation_metrics(logits: Floats, labels: Floats) -> EpochRecord:
    """Log-loss, accuracy at 0.5 and ROC-AUC of uncalibrated logits."""
    from torchmetrics.functional.classification import binary_auroc

    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    return {
        "val_log_loss": float(functional.binary_cross_entropy_with_logits(z, y)),
        "val_accuracy": float(((z >= 0) == (y == 1)).double().mean()),
        "val_roc_auc": float(binary_auroc(z.sigmoid(), y.long())),
    }


def prepare_device(config: TrainConfig, ranks: Ranks, cores: int) -> None:
    """Set threads and kernels for this process."""
    torch.set_num_threads(config.threads or max(1, cores // ranks.local_world_size))
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.deterministic = config.deterministic
    torch.use_deterministic_algorithms(config.deterministic or ranks.device.type == "cpu", warn_only=True)
    # or every new tensor is filled first, to make reads of uninitialised memory repeatable: half the step on a CPU
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    if ranks.device.type == "cpu":
        _keep_freed_memory()
    torch.manual_seed(config.seed)


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees; by default it unmaps large tensors, and each step pays page faults for them.

    Measured: 78 instead of 55 images/s (EfficientNet-Lite0, 128 px, batch 32, two threads).
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # not glibc
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 2**28)


def _autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    if config.amp == "auto":
        # bf16 on a CPU measured slower than f32 channels-last for depthwise networks, and a T4 has none
        return torch.float16 if device.type == "cuda" else None
    return {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}[config.amp]


def _positive_weight(train: Decoded, config: TrainConfig) -> float:
    return 1.0 if config.class_weights == "none" else train.real_per_generated


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def _to_device(array: Any, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _sentence(record: EpochRecord, config: TrainConfig) -> str:
    return (
        f"epoch {record['epoch']:.0f}/{config.epochs} at {record['side_px']:.0f} px: loss {record['train_loss']:.4f}, "
        f"val log-loss {record['val_log_loss']:.4f}, accuracy {record['val_accuracy']:.4f}, "
        f"AUC {record['val_roc_auc']:.4f} ({record['images_per_s']:.0f} images/s)"
    )
