"""Checkpoints: all a killed training needs to go on to the same final weights, written whole or not at all."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from components.train.config import TrainConfig
from serving.platform.errors import StageError, one_line

_FORMAT: Final = 1
_FILE: Final = "last.pt"
_MACHINE_ONLY: Final = frozenset(
    {"checkpoint_dir", "scratch_dir", "cache_bytes", "processes", "threads", "loader_threads"}
)
"""Knobs that change where and how fast, not what is trained."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where one training, told apart by its configuration and data, keeps its last state."""

    folder: Path | None

    @classmethod
    def of(cls, root: Path | None, config: TrainConfig, data_fingerprint: str, world_size: int) -> "Checkpoints":
        """The checkpoints of this configuration on this data; without a root none are kept."""
        if root is None:
            return cls(None)
        what = config.model_dump(mode="json", exclude=set(_MACHINE_ONLY))
        key = json.dumps([_FORMAT, what, data_fingerprint, world_size, torch.__version__], sort_keys=True)
        return cls(root / hashlib.sha256(key.encode()).hexdigest()[:16])

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last checkpoint; a crash while writing leaves the one before.

        Raises:
            StageError: the disk takes it no more; the one before stands.
        """
        if self.folder is None:
            return
        partial = self.folder / f".{_FILE}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / _FILE)
        except (OSError, RuntimeError) as error:  # torch's writer of archives turns the one into the other
            with contextlib.suppress(OSError):
                partial.unlink()
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else one_line(error)
            raise StageError(f"{self.folder}: cannot write the checkpoint: {reason}; free some space") from error

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint; None when there is none.

        Raises:
            StageError: a file is there but cannot be read.
        """
        path = self.folder and self.folder / _FILE
        if path is None or not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = one_line(error)
            raise StageError(f"{path}: cannot be read ({reason}); delete it to train from the start") from error
        return state

    def clear(self) -> None:
        """Forget a training that has come to its end."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
