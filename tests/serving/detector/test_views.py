"""A model of native views: its heatmap lies on the whole picture, and a recipe of later code is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.detector.bundle import read_manifest
from serving.detector.detector import Detector, Judgement
from serving.detector.views import over_picture
from serving.platform.errors import BundleError
from tests.bundles import jpeg, make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("views") / "bundle", crops=4)


def test_the_heatmap_of_crops_lies_on_the_whole_picture(bundle: Path, tmp_path: Path) -> None:
    # a dark photo, light in its upper right corner, on a white canvas that is taken off
    pixels = np.random.default_rng(3).integers(0, 60, (64, 96, 3), dtype=np.uint8)
    pixels[:16, 80:] = 255 - pixels[:16, 80:]
    canvas = Image.new("RGB", (160, 128), (255, 255, 255))
    canvas.paste(Image.fromarray(pixels), (32, 32))
    canvas.save(tmp_path / "framed.png")
    shown = Detector.load(bundle).explain((tmp_path / "framed.png").read_bytes())
    rows, columns = shown.grid.shape
    assert (rows, columns) == (128 // 8, 160 // 8), "cells as large as those of a crop"
    signed = shown.grid if shown.explained_class == "ai_generated" else -shown.grid
    light = signed[4:6, 14:16]
    assert (light > 2 * np.abs(signed).mean()).all() and light.max() == signed.max()
    outside = signed.copy()
    outside[4:12, 4:16] = 0
    assert not outside.any(), "the canvas had no say"


def test_where_views_overlap_their_mean_is_shown() -> None:
    one, other = np.full((2, 2), 1.0, np.float32), np.full((2, 2), 3.0, np.float32)
    found = over_picture([one, other], [(0, 0, 16, 16), (8, 0, 24, 16)], (32, 16))
    np.testing.assert_array_equal(found, [[1, 2, 3, 0]] * 2)


def test_many_views_are_one_answer_whatever_stands_beside_them(bundle: Path) -> None:
    detector = Detector.load(bundle)
    files = [jpeg(level, (96, 64), seed=level) for level in (30, 120, 220)]
    alone = [detector.judge(data).logit for data in files]
    together = [one.logit for one in detector.judge_all(files) if isinstance(one, Judgement)]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_a_recipe_of_other_code_is_refused(bundle: Path, tmp_path: Path) -> None:
    for crops in (3.0, "many"):
        recipe = {**read_manifest(bundle).preprocessing, "crops": crops}
        made = make_bundle(tmp_path / str(crops))
        manifest = read_manifest(made).model_copy(update={"preprocessing": recipe})
        document = {"digest": manifest.digest, **manifest.model_dump(mode="json")}
        (made / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        with pytest.raises(BundleError, match="is not known, this code does"):
            read_manifest(made)
