"""The UI as people see it: Chromium, Streamlit and the API, each a process of its own."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tests.bundles import jpeg
from tests.e2e.conftest import Cli, passed  # noqa: F401 - a fixture
from tests.serving.processes import Server, free_port, serve

pytestmark = pytest.mark.system

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
        process.wait(20)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_stcore/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


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


def test_a_person_judges_photos(browser: Any, toy_bundle: Path, tmp_path: Path) -> None:
    with (
        serve(toy_bundle, tmp_path / "api.log", API_KEYS="right", REQUIRE_AUTH="true", EXPLAIN_WARMUP="true") as api,
        interface(api.url, "right", tmp_path / "ui.log") as url,
    ):
        page = opened(browser, url)
        for photo, words in ((BRIGHT, "▲ AI-generated"), (DARK, "● Real photo")):
            answer = said(api, photo)
            upload(page, photo)
            see(page, words)
            see(page, f"Calibrated probability of AI generation: {100 * answer['probability']:.1f} %")
            heat = page.get_by_role("img", name=f"Heatmap on the photo {photo['name']}")
            heat.wait_for(timeout=WAIT_MS)
            assert heat.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
            assert page.get_by_role("slider", name="Opacity of the heatmap, in percent").count() == 1

        upload(page, TEXT)
        see(page, "note.txt has no verdict")
        see(page, "JPEG, PNG or WebP image")
        assert page.get_by_role("img", name="Heatmap on the photo").count() == 0

        ten = [BRIGHT | {"name": f"{i}.jpg", "buffer": jpeg(30 + 20 * i, seed=i)} for i in range(9)] + [TEXT]
        ai = sum(said(api, photo)["prediction"] == "ai_generated" for photo in ten[:-1])
        upload(page, *ten)
        see(page, "The API refused 1 of the files")
        numbers = page.get_by_test_id("stMetricValue").all_inner_texts()
        assert [number.strip() for number in numbers] == ["10", str(ai), str(9 - ai), "1"]
        with page.expect_download(timeout=WAIT_MS) as download:
            page.get_by_role("button", name="Download CSV").click()
        assert download.value.path().read_text("utf-8-sig").count("\n") == 11

        page.get_by_label("API key", exact=True).fill("wrong")
        page.get_by_label("API key", exact=True).press("Enter")
        see(page, "The API key is missing or wrong")

        page.reload()
        api.terminate()
        upload(page, BRIGHT)
        see(page, "The API is not reachable")
        assert page.get_by_text("▲ AI-generated").count() == 0


def test_no_page_asks_anybody_but_its_own_server(browser: Any, toy_bundle: Path, tmp_path: Path) -> None:
    with (
        serve(toy_bundle, tmp_path / "api.log", API_KEYS="right", REQUIRE_AUTH="true") as api,
        interface(api.url, "right", tmp_path / "ui.log") as url,
    ):
        for address, words in (
            (url, "Real or AI-generated?"),
            (f"{api.url}/docs", "/predict/explain"),
            (f"{api.url}/redoc", "AI Product Photo Detector"),
        ):
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(address)
            see(page, words)
            page.wait_for_load_state("networkidle")
            hosts = {httpx.URL(one).host for one in asked if one.startswith(("http", "ws"))}
            assert hosts == {"127.0.0.1"}, asked
            page.close()


def sample_photos() -> list[dict[str, Any]]:
    """A real and a generated photo of the sample's test split."""
    table = pq.read_table(ROOT / "data/sample/test.parquet", columns=["image", "label"])
    labels = table.column("label").to_pylist()
    return [
        {
            "name": f"{name}.jpg",
            "mimeType": "image/jpeg",
            "buffer": table.column("image")[labels.index(label)]["bytes"].as_py(),
        }
        for label, name in enumerate(("real", "generated"))
    ]


def test_a_model_trained_on_the_sample_says_the_same_in_browser_and_api(
    browser: Any,
    passed: tuple[Cli, dict[str, Any]],  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    _, record = passed
    trained = next(stage for stage in record["stages"] if stage["name"] == "train")
    bundle = Path(trained["output_dir"]) / "bundle"
    with (
        serve(bundle, tmp_path / "api.log", API_KEYS="right", REQUIRE_AUTH="true", EXPLAIN_WARMUP="true") as api,
        interface(api.url, "right", tmp_path / "ui.log") as url,
    ):
        page = opened(browser, url)
        photos = sample_photos()
        for photo in photos:
            answer = said(api, photo)
            upload(page, photo)
            see(page, {"ai_generated": "▲ AI-generated", "real": "● Real photo"}[answer["prediction"]])
            see(page, f"Calibrated probability of AI generation: {100 * answer['probability']:.1f} %")
            page.get_by_role("img", name=f"Heatmap on the photo {photo['name']}").wait_for(timeout=WAIT_MS)

        # the session goes on: what was judged stands in the history, the newest first
        page.locator('input[type="file"]').set_input_files(photos)
        with page.expect_download(timeout=WAIT_MS) as download:
            page.get_by_role("button", name="Download ZIP").click(timeout=WAIT_MS)
        with zipfile.ZipFile(download.value.path()) as archive:
            rows = {row["file"]: row for row in json.loads(archive.read("results.json"))}
            assert {name: row["prediction"] for name, row in rows.items()} == {
                photo["name"]: said(api, photo)["prediction"] for photo in photos
            }
        page.get_by_role("link", name="History").click()
        see(page, "History of this session")
        with page.expect_download(timeout=WAIT_MS) as history:
            page.get_by_role("button", name="Download CSV").click(timeout=WAIT_MS)
        text = history.value.path().read_text("utf-8-sig")
        assert all(photo["name"] in text for photo in photos)
        page.close()


def test_a_reached_limit_is_named_and_an_old_verdict_is_not_shown(
    browser: Any, toy_bundle: Path, tmp_path: Path
) -> None:
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_EXPLAIN": "1/minute"}
    with (
        serve(toy_bundle, tmp_path / "api.log", EXPLAIN_WARMUP="true", **limits) as api,
        interface(api.url, "", tmp_path / "ui.log") as url,
    ):
        page = opened(browser, url)
        upload(page, BRIGHT)
        see(page, "▲ AI-generated")
        upload(page, DARK)
        see(page, "Too many requests")
        see(page, "The API's limit of requests is reached")
        assert page.get_by_text("▲ AI-generated").count() == 0
        assert page.get_by_role("img", name="Heatmap on the photo").count() == 0
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_look_right(browser: Any, api: Server, scheme: str, tmp_path: Path) -> None:
    from tests.serving.ui.conftest import KEY

    with interface(api.url, KEY, tmp_path / "ui.log") as url:
        page = opened(browser, url, scheme)
        upload(page, BRIGHT)
        page.get_by_role("img", name="Heatmap on the photo").wait_for(timeout=WAIT_MS)
        luminance = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        channels = [float(part) for part in luminance[luminance.index("(") + 1 : -1].split(",")[:3]]
        assert (sum(channels) / 3 > 128) == (scheme == "light")
        for title, words in (("Model", "Verdict of the quality gate"), ("Drift", "Predictions in view")):
            page.get_by_role("link", name=title).click()
            see(page, words)
        page.get_by_role("link", name="History").click()
        see(page, "History of this session")
        page.close()
