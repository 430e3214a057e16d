"""The UI as people see it: Chromium, Streamlit and the API, each a process of its own."""

import html
import json
import os
import shutil
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

from serving.cases.words import next_step, score_line, suspicion, title
from serving.detector.bundle import read_manifest
from serving.detector.conclusion import DecisionBands
from serving.detector.domain import TrainedDomain
from tests.bundles import jpeg, make_bundle
from tests.e2e.conftest import Cli, passed  # noqa: F401 - a fixture
from tests.releases import make_evaluation, make_verdict
from tests.serving.processes import Server, free_port, serve
from tests.signed import sign

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
        for photo in (BRIGHT, DARK):
            answer = said(api, photo)
            upload(page, photo)
            see(page, title(answer))
            see(page, score_line(answer))
            see(page, next_step(answer))
            # four by four cells are too few to be shown unasked
            page.get_by_text("Where the score came from (coarse)").click(timeout=WAIT_MS)
            heat = page.get_by_role("img", name=f"Heatmap on the photo {photo['name']}")
            heat.wait_for(timeout=WAIT_MS)
            assert heat.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
            assert page.get_by_role("slider", name="Opacity of the heatmap, in percent").count() == 1
            assert page.get_by_role("button", name="It is real").is_disabled()

        upload(page, TEXT)
        see(page, "note.txt has no verdict")
        see(page, "Save it as JPEG, PNG")
        assert page.get_by_role("img", name="Heatmap on the photo").count() == 0

        page.get_by_label("API key", exact=True).fill("wrong")
        page.get_by_label("API key", exact=True).press("Enter")
        see(page, "The API key is missing or wrong")

        page.reload()
        api.terminate()
        upload(page, BRIGHT)
        see(page, "The API is not reachable")
        assert page.get_by_text("Likely AI-generated").count() == 0


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
            # what the page's own policy forbids never leaves the browser: ReDoc's script wants its maker's logo
            page.on(
                "requestfailed",
                lambda request, asked=asked: asked.remove(request.url) if "csp" in str(request.failure) else None,
            )
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
            see(page, title(answer))
            see(page, score_line(answer))
            see(page, "Where the score came from")

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


def test_a_reached_limit_costs_the_heatmap_then_time_but_no_photo(
    browser: Any, toy_bundle: Path, tmp_path: Path
) -> None:
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_EXPLAIN": "1/minute", "RATE_LIMIT_BATCH": "1/minute"}
    with (
        serve(toy_bundle, tmp_path / "api.log", EXPLAIN_WARMUP="true", **limits) as api,
        interface(api.url, "", tmp_path / "ui.log") as url,
    ):
        page = opened(browser, url)
        upload(page, BRIGHT)
        see(page, "Where the score came from")
        upload(page, DARK)
        see(page, "No heatmap yet")
        see(page, title(said(api, DARK)))
        assert page.get_by_role("img", name="Heatmap on the photo").count() == 0
        # twelve photos are two batches; a minute has one
        photos = [{**BRIGHT, "name": f"{i}.jpg", "buffer": jpeg(30 + 15 * i, seed=i)} for i in range(12)]
        upload(page, *photos)
        see(page, "2 not judged yet")
        see(page, "It goes on by itself in")
        page.get_by_text("not judged yet").wait_for(state="detached", timeout=100_000)
        assert page.get_by_role("list", name="Photos, the most suspicious first").get_by_role("listitem").count() == 12
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_look_right(browser: Any, api: Server, scheme: str, tmp_path: Path) -> None:
    from tests.serving.ui.conftest import KEY

    with interface(api.url, KEY, tmp_path / "ui.log") as url:
        page = opened(browser, url, scheme)
        upload(page, BRIGHT)
        see(page, "Where the score came from")
        luminance = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        channels = [float(part) for part in luminance[luminance.index("(") + 1 : -1].split(",")[:3]]
        assert (sum(channels) / 3 > 128) == (scheme == "light")
        for title, words in (("Model", "Verdict of the quality gate"), ("Drift", "Predictions in view")):
            page.get_by_role("link", name=title).click()
            see(page, words)
        page.get_by_role("link", name="History").click()
        see(page, "History of this session")
        page.close()


CAVEAT = "These figures come from toy pictures: they say nothing of a shop's photos."


def given(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


@pytest.fixture(scope="module")
def ten() -> list[dict[str, Any]]:
    """A moderator's ten: one signed, one outside, one damaged, one refused, two of one name."""
    return [
        given("bright.jpg", jpeg(215, (320, 240))),
        given("dark.jpg", jpeg(30, (240, 320))),
        given("between.jpg", jpeg(128, (320, 240))),
        given("00.jpg", jpeg(220, (200, 200), seed=1)),
        given("00.jpg", jpeg(50, (200, 200), seed=2)),
        given("a-name-so-long-that-it-has-to-wrap-" + "x" * 90 + ".jpg", jpeg(60, (300, 200))),
        given("signed.jpg", sign("jpeg")),
        given("outside.jpg", jpeg(60, (1400, 1100))),
        given("damaged.jpg", jpeg(90, (320, 240))[:2500]),
        TEXT,
    ]


@pytest.fixture(scope="module")
def moderation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, Path]]:
    """API, address of the page, and folder of the labels, for a gated model that knows its domain."""
    folder = tmp_path_factory.mktemp("moderation")
    bands = DecisionBands(real_below=0.4, ai_from=0.6, alpha_real=0.02, alpha_ai=0.05)
    bundle = make_bundle(folder / "bundle", domain=TrainedDomain(min_side_px=(20.0, 512.0)), bands=bands)
    digest = read_manifest(bundle).digest
    release = shutil.copytree(make_evaluation(folder / "evaluation", digest, CAVEAT), bundle / "release")
    shutil.copy(make_verdict(folder / "verdict", digest) / "verdict.json", release)
    more = {"FEEDBACK_DIR": str(folder / "labels"), "EXPLAIN_WARMUP": "true"}
    with (
        serve(bundle, folder / "api.log", API_KEYS="right", REQUIRE_AUTH="true", **more) as api,
        interface(api.url, "right", folder / "ui.log") as url,
    ):
        yield api, url, folder / "labels"


def lines_of(page: Any) -> Any:
    return page.get_by_role("list", name="Photos, the most suspicious first").get_by_role("listitem")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_a_moderators_walk(
    browser: Any,
    moderation: tuple[Server, str, Path],
    ten: list[dict[str, Any]],
    scheme: str,
    width: int,
    tmp_path: Path,
) -> None:
    api, url, labels = moderation
    headers = {"X-API-Key": "right"}
    files = [("files", (photo["name"], photo["buffer"])) for photo in ten]
    batch = httpx.post(f"{api.url}/predict/batch", files=files, headers=headers, timeout=60).json()
    wanted = sorted((item for item in batch["results"] if not item["error"]), key=suspicion, reverse=True)

    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto(url)
    see(page, CAVEAT)
    see(page, "10MB per file")
    upload(page, *ten)
    lines_of(page).nth(7).wait_for(timeout=WAIT_MS)
    # the most suspicious first, each with its picture, its decision and one line
    for number, (item, line) in enumerate(zip(wanted, lines_of(page).all(), strict=True), start=1):
        text = line.inner_text()
        assert f"{number}. {item['filename']}" in text and f"{title(item)} · {score_line(item)}" in text
        assert line.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 20
    assert {wanted[0]["filename"], wanted[1]["filename"]} <= {"signed.jpg", "bright.jpg", "00.jpg"}
    see(page, "Without a verdict: 2")
    see(page, "damaged.jpg")
    see(page, next_step(wanted[0]))

    # every photo is looked at; heatmaps of the same name do not take each other's place
    for item in wanted[1:]:
        page.get_by_role("button", name="Next photo").click()
        page.get_by_role("region", name="Decision").get_by_text(item["filename"]).wait_for(timeout=WAIT_MS)
        see(page, next_step(item))
    with page.expect_download(timeout=WAIT_MS) as download:
        page.get_by_role("button", name="Download ZIP").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        heatmaps = [name for name in archive.namelist() if name.startswith("heatmaps/")]
        assert len(heatmaps) == 8 and sum("-00-" in name for name in heatmaps) == 2
        assert len({archive.read(name) for name in heatmaps}) == 8

    last = wanted[-1]
    page.get_by_role("button", name="It is AI-generated").click()
    see(page, "Kept: you said “AI-generated”")
    kept = [json.loads(line) for line in (labels / "feedback.jsonl").read_text().splitlines()]
    assert (kept[-1]["image_sha256"], kept[-1]["label"]) == (last["image_sha256"], "ai_generated")
    with page.expect_download(timeout=WAIT_MS) as download:
        page.get_by_role("button", name="Save case report").click()
    report = download.value.path().read_text()
    for words in (
        last["image_sha256"],
        batch["record"]["model_digest"],
        html.escape(CAVEAT),
        "Label by a person</dt><dd>AI-gen",
    ):
        assert words in report
    assert report.count("data:image/png;base64,") == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / "walk.png", full_page=True)
    case = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    (tmp_path / "case.html").write_text(report)
    case.goto((tmp_path / "case.html").as_uri())
    assert case.evaluate("document.documentElement.scrollWidth") <= width
    assert case.locator("img").nth(1).evaluate("image => image.decode().then(() => image.naturalWidth)") >= 200
    case.screenshot(path=tmp_path / "case.png", full_page=True)
    case.close()
    page.close()
