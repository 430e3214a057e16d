"""A moderator's walk through ten photos in Chromium: light, dark, and on a phone."""

import html
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.cases.words import next_step, score_line, suspicion, title
from serving.detector.bundle import read_manifest
from serving.detector.conclusion import DecisionBands
from serving.detector.domain import TrainedDomain
from tests.bundles import jpeg, make_bundle
from tests.releases import make_evaluation, make_verdict
from tests.serving.processes import Server, serve
from tests.serving.ui.chromium import TEXT, WAIT_MS, interface, see, upload
from tests.signed import sign

pytestmark = pytest.mark.system

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
    # six by six cells: as fine as the sample's model has them, and enough to be shown unasked
    bundle = make_bundle(folder / "bundle", input_px=48, domain=TrainedDomain(min_side_px=(20.0, 512.0)), bands=bands)
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
    page.get_by_role("img", name="Heatmap on the photo").first.wait_for(timeout=WAIT_MS)
    assert page.get_by_text("(coarse)").count() == 0

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
