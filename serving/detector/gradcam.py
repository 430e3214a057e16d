"""Grad-CAM from the feature map the engine already returned: Captum on the pooling head alone.

Grad-CAM needs the gradient of the score with respect to the last feature map only, so no second copy of the
network and no backbone in torch is needed; a test holds the result against Captum on the full network.
"""

import importlib
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from serving.detector.collector import lasting
from serving.detector.engine import Floats
from serving.detector.labels import Label
from serving.detector.preprocess import Pixels

if TYPE_CHECKING:
    import torch

OVERLAY_ALPHA: Final = 0.45
OVERLAY_SIDES_PX: Final = (256, 512)
"""Bounds of an overlay's longer side: small pictures are enlarged so far, large ones reduced so far."""
_RUN_LENGTHS: Final = 3
"""zlib's strategy Z_RLE."""


class PoolingHead:
    """Global average pooling and the final linear layer, rebuilt in torch for Captum."""

    def __init__(self, head_file: Path) -> None:
        from safetensors.numpy import load_file

        tensors = load_file(head_file)
        self.weight: Floats = tensors["weight"]  # (1, channels)
        self.bias: Floats = tensors["bias"]  # (1,)
        self._of_thread = threading.local()

    def explain(self, features: Floats, label: Label) -> Floats:
        """Signed Grad-CAM of one image for the class `label`.

        Args:
            features: the map before pooling, (channels, rows, columns).
            label: the explained class; for `real` the negative of the logit is explained.

        Returns:
            float32 (rows, columns). Positive cells spoke for `label`. For `ai_generated` the cells sum to
            `logit - bias`.
        """
        if "captum.attr" not in sys.modules:
            with lasting():
                importlib.import_module("captum.attr")
        import torch
        from captum.attr import LayerGradCam

        module = self._module()
        sign = 1.0 if label == "ai_generated" else -1.0
        attribution = LayerGradCam(module, module[0]).attribute(torch.from_numpy(features[None]), target=0)
        grid: Floats = attribution[0, 0].detach().numpy() * np.float32(sign)
        return grid

    def _module(self) -> "torch.nn.Sequential":
        # a module for each thread: Captum's hooks are not thread-safe on a shared one, and this one is a few kilobytes
        module: torch.nn.Sequential | None = getattr(self._of_thread, "module", None)
        if module is None:
            module = self._of_thread.module = self._build()
        return module

    def _build(self) -> "torch.nn.Sequential":
        import torch
        from torch import nn

        linear = nn.Linear(self.weight.shape[1], 1)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(self.weight))
            linear.bias.copy_(torch.from_numpy(self.bias))
        return nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


def heat(grid: Floats) -> Floats | None:
    """Positive part of a signed map scaled to 0..1; None when no cell spoke for the class."""
    positive = np.maximum(grid, 0.0)
    peak = float(positive.max(initial=0.0))
    return np.asarray(positive / peak, dtype=np.float32) if peak > 0.0 else None


def shown(rgb: Image.Image, side_px: int | None = None) -> Image.Image:
    """The picture at the size it is shown in.

    Args:
        rgb: the picture, of any size.
        side_px: the longer side of the result; None keeps the picture's own within `OVERLAY_SIDES_PX`.
    """
    if side_px is None:
        least, most = OVERLAY_SIDES_PX
        side_px = min(most, max(least, *rgb.size))
    scale = side_px / max(rgb.size)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    return rgb.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def overlay(picture: Image.Image, grid: Floats) -> Image.Image:
    """The RGB picture with its heat on it; `grid` is a signed map, (rows, columns)."""
    strength = heat(grid)
    if strength is None:
        return picture
    field = Image.fromarray(strength).resize(picture.size, Image.Resampling.BICUBIC)
    levels = Image.fromarray((np.asarray(field).clip(0.0, 1.0) * 255).astype(np.uint8))
    levels.putpalette(TURBO.tobytes())
    # coloured and mixed inside Pillow: a fifth of the time of float arrays of the whole picture
    return Image.blend(picture, levels.convert("RGB"), OVERLAY_ALPHA)


def encode_png(image: Image.Image) -> bytes:
    """PNG by run lengths alone: on a picture of a photo the fastest way, and smaller than the search for matches."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return buffer.getvalue()


def _turbo() -> Pixels:
    """Turbo colour map, 256 x 3, from its published polynomial fit (A. Mikhailov, Google, 2019)."""
    x = np.linspace(0.0, 1.0, 256)
    powers = np.stack([x**k for k in range(6)])
    red = np.array([0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943])
    green = np.array([0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604])
    blue = np.array([0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973])
    rgb = np.stack([red @ powers, green @ powers, blue @ powers], axis=1)
    return (rgb.clip(0.0, 1.0) * 255).round().astype(np.uint8)


TURBO: Final = _turbo()
