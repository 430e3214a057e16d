"""The ONNX graph on ONNX Runtime: uint8 pixels in, logit and last feature map out."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from serving.detector.preprocess import Pixels

Floats = npt.NDArray[np.float32]


class Engine:
    """One shared inference session; `run` may be called from many threads at once.

    Measured: several single-thread calls side by side give more images per second than one multi-thread call, so
    `threads` is 1 unless a caller has the machine to itself.
    """

    def __init__(self, model: Path, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # a spinning pool burns the core its neighbours need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        shape = self._session.get_inputs()[0].shape
        self.input_px = int(shape[1])

    def logits(self, batch: Pixels) -> Floats:
        """Raw logits, shape (n,), of a uint8 batch of shape (n, input_px, input_px, 3)."""
        (logits,) = self._session.run(["logit"], {"image": np.ascontiguousarray(batch)})
        return np.asarray(logits, dtype=np.float32)

    def logits_and_features(self, batch: Pixels) -> tuple[Floats, Floats]:
        """Raw logits (n,) and the feature map before pooling (n, channels, rows, columns)."""
        logits, features = self._session.run(["logit", "features"], {"image": np.ascontiguousarray(batch)})
        return np.asarray(logits, dtype=np.float32), np.asarray(features, dtype=np.float32)
