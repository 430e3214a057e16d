"""One process or several: the few collective operations training needs, the same to call either way."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
from torch import distributed as dist

from components.train.config import Launch
from components.train.shards import Part
from serving.detector.engine import Floats
from serving.platform.errors import StageError, one_line

_DRIVERS: Final = {"12": 525, "13": 580}
"""CUDA's major version -> the oldest driver that runs it (NVIDIA, "Minor Version Compatibility", 2026)."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers."""

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0
    """Among those of the same machine."""
    local_world_size: int = 1
    """How many of them there are."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether this process does what is done once on each machine."""
        return self.local_rank == 0

    @property
    def part(self) -> Part:
        """This machine among all: each has as many processes."""
        here = self.local_world_size
        return Part(self.rank // here, self.world_size // here, here)

    def barrier(self) -> None:
        """Wait for all peers."""
        if self.world_size > 1:
            dist.barrier()

    def share_here(self, value: Any) -> Any:
        """The value of this machine's first process, on each of its processes."""
        if self.world_size == 1:
            return value
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values[self.rank - self.local_rank]

    def interleave(self, shard: Floats, n: int) -> Floats:
        """Put shards of `rows[rank::world_size]` back in order: float32 (n,) on every process."""
        if self.world_size == 1:
            return shard
        shards: list[Any] = [None] * self.world_size
        dist.all_gather_object(shards, shard)
        whole = np.empty(n, dtype=np.float32)
        for rank, part in enumerate(shards):
            whole[rank :: self.world_size] = part
        return whole


@contextmanager
def joined(launch: Launch, device: str) -> Iterator[Ranks]:
    """Join the process group torchrun announced (gloo on CPU, nccl on CUDA); alone, there is no group."""
    chosen = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cuda":
        _require_cuda()
        chosen = f"cuda:{launch.local_rank}"
        torch.cuda.set_device(launch.local_rank)
    ranks = Ranks(launch.rank, launch.world_size, torch.device(chosen), launch.local_rank, launch.local_world_size)
    if launch.world_size == 1:
        yield ranks
        return
    dist.init_process_group("nccl" if ranks.device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _require_cuda() -> None:
    """Refuse a machine whose GPU this torch cannot use, with what to do about it.

    Raises:
        StageError: there is no GPU, its driver is too old, or this torch was built without CUDA.
    """
    built = torch.version.cuda
    if built is None:
        raise StageError("train.device is cuda, and this torch was built for CPUs; set TORCH_CUDA_INDEX (docs/CICD.md)")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call] # torch is untyped here
    except (RuntimeError, AssertionError) as error:
        driver = _DRIVERS.get(built.partition(".")[0])
        wants = f", which wants NVIDIA's driver {driver} or newer" if driver else ""
        raise StageError(
            f"train.device is cuda, and no GPU can be used: {one_line(error)}; this torch was built for CUDA "
            f"{built}{wants}: where a machine's is older, build the image with TORCH_CUDA_INDEX (docs/CICD.md)"
        ) from error
