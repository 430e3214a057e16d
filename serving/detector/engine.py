"""The ONNX graph on ONNX Runtime: uint8 pixels in, logit and last feature map out."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from serving.detector import hugepages
from serving.detector.onnxfile import without_output
from serving.detector.preprocess import Pixels

Floats = npt.NDArray[np.float32]


class Engine:
    """Shared inference sessions; they may be called from many threads at once.

    The graph is opened whole and without its feature map: to bring that into the common layout costs 3 % of a verdict.

    Measured: several single-thread calls side by side give more images per second than one multi-thread call, so
    `threads` is 1 unless a caller has the machine to itself. A graph of fixed batch 1 (training exports one where that
    is faster) gets the images of a batch one after the other, `threads` of them side by side.
    """

    def __init__(self, model: Path, threads: int = 1) -> None:
        content = model.read_bytes()
        self._whole = _open(content, 1)
        batch, side = self._whole.get_inputs()[0].shape[:2]
        self.input_px = int(side)
        self._one_by_one = batch == 1
        self._pool = ThreadPoolExecutor(threads) if self._one_by_one and threads > 1 else None
        in_a_call = 1 if self._one_by_one else threads
        if in_a_call > 1:
            self._whole = _open(content, in_a_call)
        self._verdict = _open(without_output(content, "features"), in_a_call)

    def logits(self, batch: Pixels) -> Floats:
        """Raw logits, shape (n,), of a uint8 batch of shape (n, input_px, input_px, 3)."""
        return self._run(self._verdict, ["logit"], batch)[0]

    def logits_and_features(self, batch: Pixels) -> tuple[Floats, Floats]:
        """Raw logits (n,) and the feature map before pooling (n, channels, rows, columns)."""
        logits, features = self._run(self._whole, ["logit", "features"], batch)
        return logits, features

    def settle(self) -> None:
        """Prepare for a long life, once an image has been scored: weights and maps move to huge pages."""
        hugepages.collapse()

    def _run(self, session: ort.InferenceSession, outputs: list[str], batch: Pixels) -> list[Floats]:
        def score(images: Pixels) -> list[Floats]:
            found: list[Floats] = session.run(outputs, {"image": images})
            return found

        batch = np.ascontiguousarray(batch)
        if not self._one_by_one or len(batch) <= 1:
            return score(batch)
        images = [batch[at : at + 1] for at in range(len(batch))]
        scored = self._pool.map(score, images) if self._pool else map(score, images)
        return [np.concatenate(of_output) for of_output in zip(*scored, strict=True)]


def _open(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # a spinning pool burns the core its neighbours need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
