"""Grad-CAM from the feature map the engine already returned: Captum on the pooling head alone.

Grad-CAM needs the gradient of the score with respect to the last feature map only, so no second copy of the
network and no backbone in torch is needed; a test holds the result against Captum on the full network.
"""

import importlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serving.detector.collector import lasting
from serving.detector.engine import Floats
from serving.detector.labels import Label

if TYPE_CHECKING:
    import torch


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
