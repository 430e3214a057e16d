"""The in-process limit: decode and engine alone, no HTTP; and the drawing and encoding of an overlay.

Reads lines `predict IMAGE N THREADS` and `overlay IMAGE N`, answers CPU milliseconds an image.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from serving.detector import heatmap
from serving.detector.detector import Detector
from serving.detector.image import ImageLimits, decode


class Limit:
    """The in-process limit in a process of its own."""

    def __init__(self, bundle: Path) -> None:
        command = [sys.executable, "-m", "tests.bench.serving_limit", str(bundle)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def predict_ms(self, image: Path, count: int, threads: int = 1) -> float:
        """CPU milliseconds of decode + engine, an image, with `threads` slots at work."""
        return self._ask(f"predict {image} {count} {threads}")

    def overlay_ms(self, image: Path, count: int) -> float:
        """CPU milliseconds of drawing and encoding an overlay."""
        return self._ask(f"overlay {image} {count}")

    def _ask(self, line: str) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


def main(folder: Path) -> None:
    """Answer until the input ends."""
    detector = Detector.load(folder)
    # as the server does
    detector.settle()
    limits = ImageLimits()
    grid = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    # as the server's slots: threads of their own
    pool = ThreadPoolExecutor(16)
    for line in sys.stdin:
        what, path, count, *threads = line.split()
        data = Path(path).read_bytes()
        rgb = decode(data, limits, target_px=detector.input_px).rgb

        def predict(data: bytes = data) -> None:
            detector.judge(data, limits)

        def overlay(rgb: Image.Image = rgb) -> None:
            heatmap.draw(rgb, grid, "png")

        work: Callable[[], None] = predict if what == "predict" else overlay
        print(_cpu_ms(pool, work, int(count), *map(int, threads)), flush=True)


def _cpu_ms(pool: ThreadPoolExecutor, work: Callable[[], None], count: int, threads: int = 1) -> float:
    """CPU milliseconds of one piece of work, done about `count` times by `threads` at once."""
    each = -(-count // threads)

    def share(_: int) -> None:
        for _ in range(each):
            work()

    started = time.process_time()
    list(pool.map(share, range(threads)))
    return (time.process_time() - started) / (each * threads) * 1e3


if __name__ == "__main__":
    main(Path(sys.argv[1]))
