"""Take the pictures in docs/: `python -m tests.serving.ui.screenshots MODEL_URI PHOTO [FOLDER]`."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.serving.processes import serve
from tests.serving.ui.test_browser import CHROMIUM, FLAGS, ROOT, interface, opened, see, upload


def main(model_uri: str, photo: Path, folder: Path) -> None:
    """Write `ui-light.png` and `ui-dark.png`: the photo's verdict and heatmap."""
    given = {"name": photo.name, "mimeType": "image/jpeg", "buffer": photo.read_bytes()}
    tracking = f"sqlite:///{ROOT / 'workspace' / 'mlflow.db'}"
    with (
        tempfile.TemporaryDirectory() as scratch,
        serve(model_uri, Path(scratch, "api"), MLFLOW_TRACKING_URI=tracking, MODEL_CACHE_DIR=scratch) as api,
        interface(api.url, "", Path(scratch, "ui")) as url,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for scheme in ("light", "dark"):
            page = opened(browser, url, scheme)
            page.set_viewport_size({"width": 1280, "height": 1500})
            upload(page, given)
            see(page, "Where the score came from")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"ui-{scheme}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "docs")
