"""Take the pictures in docs/: `python -m tests.serving.ui.screenshots MODEL_URI PHOTO... [--folder docs]`.

`ui-light.png` and `ui-dark.png` show the first photo, `ui-batch.png` all of them, `ui-phone.png` the first on a phone;
`example.png` is the first photo beside its heatmap. The photos come from the sample's test split.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from serving.detector.detector import Detector
from serving.detector.heatmap import overlay, shown
from serving.registry import resolve
from tests.serving.processes import serve
from tests.serving.ui.chromium import CHROMIUM, FLAGS, ROOT, WAIT_MS, interface, opened, see, upload

SIDE_PX, GAP_PX = 384, 16
_WHOLE = """() => document.images.length > 0 && [...document.images].every(one => one.complete)
  && !document.querySelector('[data-testid="stSkeleton"]')"""
"""Of a page on a busy machine: that no place holder stands any more."""


def main(model_uri: str, photos: list[Path], folder: Path, tracking: str) -> None:
    """Write the pictures."""
    given = [{"name": photo.name, "mimeType": "image/jpeg", "buffer": photo.read_bytes()} for photo in photos]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = resolve(model_uri, Path(scratch, "cache"), tracking).folder
        _example(bundle, photos[0], folder / "example.png")
        labels = {"FEEDBACK_DIR": scratch, "EXPLAIN_WARMUP": "true"}
        with (
            serve(bundle, Path(scratch, "api"), **labels) as api,
            interface(api.url, "", Path(scratch, "ui")) as url,
            sync_playwright() as play,
        ):
            browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name, scheme, width, files in (
                ("ui-light", "light", 1280, given[:1]),
                ("ui-dark", "dark", 1280, given[:1]),
                ("ui-batch", "light", 1280, given),
                ("ui-phone", "light", 390, given[:1]),
            ):
                _shot(browser, url, scheme, width, files, folder / f"{name}.png")
            browser.close()


def _shot(browser: Any, url: str, scheme: str, width: int, files: list[dict[str, Any]], path: Path) -> None:
    page = opened(browser, url, scheme)
    page.set_viewport_size({"width": width, "height": 1500})
    upload(page, *files)
    see(page, "Where the score came from")
    page.wait_for_load_state("networkidle")
    page.wait_for_function(_WHOLE, timeout=WAIT_MS)
    page.screenshot(path=path)
    page.close()


def _example(bundle: Path, photo: Path, path: Path) -> None:
    explanation = Detector.load(bundle).explain(photo.read_bytes(), side_px=SIDE_PX)
    left = shown(explanation.drawn.photo, SIDE_PX)
    found = Image.new("RGB", (2 * left.width + GAP_PX, left.height), (255, 255, 255))
    found.paste(left, (0, 0))
    found.paste(overlay(left, explanation.grid), (left.width + GAP_PX, 0))
    found.save(path, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_uri")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs")
    parser.add_argument("--tracking", default=f"sqlite:///{ROOT / 'workspace' / 'mlflow.db'}")
    given = parser.parse_args()
    main(given.model_uri, given.photos, given.folder, given.tracking)
