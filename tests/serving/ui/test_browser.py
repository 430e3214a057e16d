"""The UI as people see it: Chromium, Streamlit and the API, each a process of its own."""

import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from serving.cases.words import next_step, score_line, title
from tests.bundles import jpeg
from tests.components.train.conftest import Trained, toy_data, trained  # noqa: F401 - fixtures
from tests.serving.processes import Server, serve
from tests.serving.ui.chromium import BRIGHT, DARK, ROOT, TEXT, WAIT_MS, interface, opened, said, see, upload

pytestmark = pytest.mark.system


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
    """A real and a generated photo of those that the model was tested on."""
    table = pq.read_table(ROOT / "tests/sample64/test.parquet", columns=["image", "label"])
    labels = table.column("label").to_pylist()
    return [
        {
            "name": f"{name}.jpg",
            "mimeType": "image/jpeg",
            "buffer": table.column("image")[labels.index(label)]["bytes"].as_py(),
        }
        for label, name in enumerate(("real", "generated"))
    ]


def test_a_trained_model_says_the_same_in_browser_and_api(
    browser: Any,
    trained: Trained,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    settings = {"API_KEYS": "right", "REQUIRE_AUTH": "true", "EXPLAIN_WARMUP": "true"}
    with (
        serve(trained.bundle, tmp_path / "api.log", **settings) as api,
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
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_EXPLAIN": "1/minute", "RATE_LIMIT_BATCH": "1/30 seconds"}
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
        # twelve photos are two batches; half a minute has one
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
