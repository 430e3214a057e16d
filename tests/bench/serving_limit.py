"""The in-process limit: decode and engine alone, no HTTP. Reads `IMAGE N` lines, answers CPU milliseconds an image."""

import sys
import time
from pathlib import Path

from serving.detector import gradcam
from serving.detector.detector import Detector
from serving.detector.image import ImageLimits


def main(folder: Path) -> None:
    """Answer until the input ends: decode + engine, and the overlay's drawing and encoding."""
    detector = Detector.load(folder)
    # as the server does
    detector.settle()
    limits = ImageLimits()
    for line in sys.stdin:
        path, count = line.split()
        data = Path(path).read_bytes()
        started = time.process_time()
        for _ in range(int(count)):
            detector.predict([detector.pixels(data, limits)])
        predict = (time.process_time() - started) / int(count) * 1e3
        from serving.detector.image import decode

        rgb = decode(data, limits, target_px=detector.input_px).rgb
        import numpy as np

        grid = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
        started = time.process_time()
        for _ in range(5):
            gradcam.encode_png(gradcam.overlay(rgb, grid))
        overlay = (time.process_time() - started) / 5 * 1e3
        print(predict, overlay, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
