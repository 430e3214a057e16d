"""Chromium, the page as its image starts it, and what a person does with it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.bundles import jpeg
from tests.serving.processes import Server, free_port

ROOT = Path(__file__).resolve().parents[3]
APP = ROOT / "serving" / "ui" / "app.py"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 45_000
"""For words to appear; generous, for the processors are shared."""

BRIGHT = {"name": "bright.jpg", "mimeType": "image/jpeg", "buffer": jpeg(210, (320, 240))}
DARK = {"name": "dark.jpg", "mimeType": "image/jpeg", "buffer": jpeg(40, (320, 240))}
TEXT = {"name": "note.txt", "mimeType": "text/plain", "buffer": b"no picture"}


@contextmanager
def interface(api_url: str, key: str, log: Path) -> Iterator[str]:
    """`streamlit run` as the container image starts it; yields its address."""
    port = free_port()
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR")}
    settings = {
        "API_URL": api_url,
        "API_KEY": key,
        "HOME": str(log.parent),
        "PYTHONPATH": str(ROOT),
        "STREAMLIT_SERVER_ADDRESS": "127.0.0.1",
        "STREAMLIT_SERVER_PORT": str(port),
        "STREAMLIT_SERVER_HEADLESS": "true",
        "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
        "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(APP)]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=keep | settings, stdout=out, stderr=subprocess.STDOUT)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while not _healthy(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_stcore/health", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def upload(page: Any, *files: dict[str, Any]) -> None:
    """Take what is there away and drop these."""
    page.reload()
    page.locator('input[type="file"]').wait_for(state="attached", timeout=WAIT_MS)
    page.locator('input[type="file"]').set_input_files(list(files))


def see(page: Any, words: str) -> None:
    """Wait until the words are there."""
    page.get_by_text(words).first.wait_for(timeout=WAIT_MS)


def opened(browser: Any, url: str, scheme: str = "light") -> Any:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 1150})
    page.goto(url)
    see(page, "Real or AI-generated?")
    return page


def said(api: Server, photo: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{api.url}/predict", files={"file": photo["buffer"]}, headers={"X-API-Key": "right"})
    return dict(answer.json())
