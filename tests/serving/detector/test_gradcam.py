"""Grad-CAM on the pooling head alone is Grad-CAM on the whole network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from PIL import Image
from safetensors.numpy import save_file

from serving.detector.detector import Detector
from serving.detector.gradcam import PoolingHead, encode_png, heat, overlay, shown
from tests.bundles import jpeg


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1).eval()


@pytest.fixture(scope="module")
def head(network: Any, tmp_path_factory: pytest.TempPathFactory) -> PoolingHead:
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    linear = network.get_classifier()
    save_file({"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}, path)
    return PoolingHead(path)


def test_equal_to_captum_on_the_full_network(network: Any, head: PoolingHead) -> None:
    images = torch.rand(3, 3, 96, 96)
    with torch.no_grad():
        features = network.forward_features(images)
        logits = network(images).squeeze(1)
    for index in range(len(images)):
        full = LayerGradCam(network, network.bn2).attribute(images[index : index + 1], target=0)
        reference = full[0, 0].detach().numpy()
        found = head.explain(features[index].numpy(), "ai_generated")
        np.testing.assert_allclose(found, reference, atol=1e-5)
        assert np.abs(reference).max() > 1e-4  # not a comparison of zeros
        # the cells account for the whole score
        assert float(found.sum()) + float(head.bias[0]) == pytest.approx(float(logits[index]), abs=1e-4)
        np.testing.assert_array_equal(head.explain(features[index].numpy(), "real"), -found)


def test_the_bundle_explains_the_class_it_predicts(toy_bundle: Path) -> None:
    detector = Detector.load(toy_bundle)
    for level, label in ((20, "real"), (230, "ai_generated")):
        explanation = detector.explain(jpeg(level))
        assert explanation.explained_class == explanation.judgement.verdict.prediction == label


def test_no_heat_where_no_cell_spoke_for_the_class() -> None:
    assert heat(np.full((4, 4), -1.0, dtype=np.float32)) is None
    scaled = heat(np.array([[-1.0, 2.0], [1.0, 0.0]], dtype=np.float32))
    assert scaled is not None
    np.testing.assert_allclose(scaled, [[0.0, 1.0], [0.5, 0.0]])


def test_the_overlay_keeps_the_shape_and_shows_where() -> None:
    photo = Image.new("RGB", (200, 100), (128, 128, 128))
    grid = np.zeros((4, 4), dtype=np.float32)
    grid[:, 0] = 1.0
    picture = overlay(shown(photo, 100), grid)
    assert picture.size == (100, 50)
    pixels = np.asarray(picture, dtype=np.int64)
    redness = (pixels[..., 0] - pixels[..., 2]).mean(axis=0)
    assert redness[:10].min() > 40 > abs(redness[-10:]).max()
    plain = overlay(shown(photo, 100), -grid - 1)
    assert (np.asarray(plain) == 128).all()
    assert encode_png(picture).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 32), (256, 128)), ((300, 400), (300, 400)), ((9, 2048), (2, 512))]
)
def test_an_overlay_without_a_wish_is_as_large_as_the_picture_within_bounds(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = shown(Image.new("RGB", size))
    assert picture.size == overlay(picture, np.ones((4, 4), dtype=np.float32)).size == expected
