"""The twin: the very same server, but scoring by eager PyTorch and decoding by plain PIL (`python -m ...serving_twin`).

Started like `python -m serving` and from the same bundle. Its network runs under inference_mode on one thread, in the
memory layout that is faster on this machine, measured at the start.
"""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from serving.detector import bundle, detector, engine
from serving.detector.bundle import read_manifest
from serving.detector.conclusion import Policy
from serving.detector.detector import Detector, Prepared
from serving.detector.domain import UNKNOWN
from serving.detector.image import ImageLimits, decode
from serving.detector.preprocess import Pixels
from serving.provenance.inspect import inspect

torch.set_num_threads(1)


class EagerEngine:
    """`serving.detector.engine.Engine` on eager PyTorch."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        import timm

        manifest = read_manifest(model.parent)
        self.input_px = manifest.input_px
        self._model: Any = timm.create_model(manifest.architecture, pretrained=False, num_classes=1).eval()
        self._model.load_state_dict(load_file(model.parent / bundle.WEIGHTS))
        cfg: Any = self._model.pretrained_cfg
        self._mean = torch.tensor(cfg["mean"]).view(1, 3, 1, 1)
        self._std = torch.tensor(cfg["std"]).view(1, 3, 1, 1)
        self.layout = self._faster_layout()

    def _faster_layout(self) -> torch.memory_format:
        pixels = np.zeros((1, self.input_px, self.input_px, 3), np.uint8)
        times = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            self._use(layout)
            for _ in range(3):
                self.logits(pixels)
            started = time.thread_time()
            for _ in range(10):
                self.logits(pixels)
            times[layout] = time.thread_time() - started
        best = min(times, key=times.__getitem__)
        self._use(best)
        print(f"twin: {best}, " + ", ".join(f"{k}: {v * 100:.1f} ms" for k, v in times.items()), flush=True)
        return best

    def _use(self, layout: torch.memory_format) -> None:
        self.layout = layout
        self._model = self._model.to(memory_format=layout)

    def _forward(self, batch: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).float().div_(255)
            x = ((x - self._mean) / self._std).contiguous(memory_format=self.layout)
            features = self._model.forward_features(x)
            return self._model.forward_head(features).squeeze(1), features

    def settle(self) -> None:
        """Eager PyTorch takes its memory as it comes."""

    def logits(self, batch: Pixels) -> engine.Floats:
        return np.asarray(self._forward(batch)[0])

    def logits_and_features(self, batch: Pixels) -> tuple[engine.Floats, engine.Floats]:
        logits, features = self._forward(batch)
        return logits.numpy(), features.contiguous().numpy()


def prepare(self: Detector, data: bytes, limits: ImageLimits | None = None, policy: Policy | None = None) -> Prepared:
    """Open, convert, resize: what a PIL server does, and no evidence gathered."""
    started = time.perf_counter()
    rgb = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = np.asarray(rgb.resize((self.input_px, self.input_px), Image.Resampling.BILINEAR))
    return Prepared(_INFO, pixels[None], UNKNOWN, _NOTHING, _UNREAD, time.perf_counter() - started)


def _tiny() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    return buffer.getvalue()


_INFO = decode(_tiny()).info
"""The twin looks at nothing but pixels; the observers behind it want some description."""
_NOTHING = inspect(_tiny())
_UNREAD = "0" * 64
"""In place of the digest of a file, which the twin does not count either."""

if __name__ == "__main__":
    vars(detector)["Engine"] = EagerEngine
    Detector.prepare = prepare  # type: ignore[method-assign] # what makes it the twin
    from serving.__main__ import main

    main()
