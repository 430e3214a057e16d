"""Training in several processes: a process for each GPU, started by `torchrun` on this machine or on several."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.context import RunContext
from components.artifacts.dataset import Dataset
from components.platform.signals import interrupts_held, sigterm_raises
from components.train.config import Launch, TrainConfig
from serving.platform.errors import StageError, StoppedError, one_line
from serving.platform.processes import tied
from serving.platform.settings import pin_numerical_threads

if TYPE_CHECKING:
    from components.train.stage import TrainSummary

ALONE: Final = ("--standalone", "--local-addr=127.0.0.1")
"""Options of torchrun where all processes are on this machine, whose own name need not lead anywhere."""
_DRIVER: Final = "libcuda.so.1"
"""NVIDIA's driver; without it torch finds no GPU."""
_END_S: Final = 60.0
"""From SIGTERM to SIGKILL of torchrun, which itself gives its processes 30 s."""
_ORPHANED_S: Final = 1.0
"""Between two looks of a process whether its torchrun still lives."""
_ORDER, _SUMMARY, _ERROR = "order.json", "summary.json", "error.txt"


def train(
    dataset: Path, out: Path, config: TrainConfig, context: RunContext, curves: Path | None = None
) -> "TrainSummary | None":
    """Train as `stage.train` does, in as many processes as the configuration and this machine's GPUs ask for.

    Where a launcher has started several already, or one is enough, it is this process that trains.

    Raises:
        StageError: as `stage.train`; also a process that ended without a word.
    """
    # what is no dataset is told at once, not after the seconds in which torch loads
    Dataset(dataset)
    from components.train.stage import train as alone

    processes = 1 if Launch.from_environment().world_size > 1 else wanted(config)
    if processes == 1:
        return alone(dataset, out, config, context, curves)
    with tempfile.TemporaryDirectory(prefix="aidetect-torchrun-") as scratch:
        order(Path(scratch), dataset, out, config, context, curves)
        code = launch(processes, Path(scratch), ALONE)
        return summary_of(Path(scratch), f"training in {processes} processes ended with status {code}", code == 0)


def wanted(config: TrainConfig) -> int:
    """Processes to start on one machine: never more than it has GPUs, where it has any; one on any other device."""
    if config.device not in ("auto", "cuda", "cpu"):
        return 1
    gpus = _gpus() if config.device in ("auto", "cuda") else 0
    return min(config.processes or gpus, gpus) if gpus else config.processes or 1


def _gpus() -> int:
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return 0  # known without three seconds of importing torch
    import torch

    return torch.cuda.device_count()


def order(
    folder: Path, dataset: Path, out: Path, config: TrainConfig, context: RunContext, curves: Path | None
) -> None:
    """Leave in a folder what the processes are to do; what an earlier attempt left there goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_SUMMARY, _ERROR):
        (folder / name).unlink(missing_ok=True)
    document: dict[str, Any] = {"dataset": str(dataset), "out": str(out), "curves": str(curves or "")}
    document |= {"config": config.model_dump(mode="json"), "context": context.model_dump(mode="json")}
    (folder / _ORDER).write_text(json.dumps(document))


def ordered(folder: Path) -> TrainConfig:
    """The configuration of the order in a folder.

    Raises:
        StageError: there is none.
    """
    try:
        return TrainConfig.model_validate(json.loads((folder / _ORDER).read_text())["config"])
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{folder / _ORDER}: no order for a training: {one_line(error)}") from error


def is_ordered(folder: Path) -> bool:
    """Whether an order lies in a folder."""
    return (folder / _ORDER).is_file()


def explained(folder: Path) -> bool:
    """Whether a process said why it could not go on."""
    return (folder / _ERROR).is_file()


def summary_of(folder: Path, ended: str, well: bool) -> "TrainSummary":
    """What the main process left.

    Args:
        folder: of the order.
        ended: how the processes ended, in words.
        well: whether that was without an error.

    Raises:
        StageError: the first process's own error, or that they ended without a word.
    """
    from components.train.stage import TrainSummary

    if explained(folder):
        raise StageError((folder / _ERROR).read_text())
    if not well or not (folder / _SUMMARY).is_file():
        raise StageError(f"{ended}; its log says why")
    found: dict[str, Any] = json.loads((folder / _SUMMARY).read_text())
    return TrainSummary(**found)


def launch(processes: int, folder: Path, options: tuple[str, ...]) -> int:
    """Run torchrun to its end, and return its status.

    Its processes end with this one, however it ends, and when this one is told to end.
    """
    words = [*options, f"--nproc-per-node={processes}", "-m", "components.train.processes", str(folder)]
    # or torchrun says so in a box of stars; each process sets its own number of threads afterwards
    pin_numerical_threads()
    process: subprocess.Popen[bytes] | None = None
    try:
        with sigterm_raises():
            with interrupts_held():
                process = subprocess.Popen(
                    tied("torch.distributed.run", *words), stdin=subprocess.PIPE, start_new_session=True
                )
            return process.wait()
    finally:
        if process is not None:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
    if process.stdin is not None:
        process.stdin.close()


def _end_with(parent: int) -> None:
    """End this process when its torchrun is gone: each has a session of its own, so no group's signal reaches it."""
    while os.getppid() == parent:
        time.sleep(_ORPHANED_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_S)
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> int:
    """One of the processes; the main one leaves the summary, whichever fails its error."""
    from components.train.stage import train as alone

    threading.Thread(target=_end_with, args=(os.getppid(),), name="torchrun", daemon=True).start()
    document = json.loads((folder / _ORDER).read_text())
    try:
        summary = alone(
            Path(document["dataset"]),
            Path(document["out"]),
            TrainConfig.model_validate(document["config"]),
            RunContext.model_validate(document["context"]),
            Path(document["curves"]) if document["curves"] else None,
        )
    except StoppedError:
        return 1  # torchrun ends the others when one has failed: that one's error is the cause
    except StageError as error:
        # a peer's own error is the cause; what the others say of the broken group follows from it
        with suppress(FileExistsError), (folder / _ERROR).open("x") as file:
            file.write(one_line(error))
        return 1
    if summary is not None:
        (folder / _SUMMARY).write_text(json.dumps(asdict(summary)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
