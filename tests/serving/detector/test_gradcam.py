"""Grad-CAM on the pooling head alone is Grad-CAM on the whole network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.detector.detector import Detector
from serving.detector.gradcam import PoolingHead
from tests.bundles import jpeg


@pytest.fixture(scope="module")
def network() -> Any:
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1).eval()


@pytest.fixture(scope="module")
def head(network: Any, tmp_path_factory: pytest.TempPathFactory) -> PoolingHead:
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    linear = network.get_classifier()
    save_file({"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}, path)
    return PoolingHead(path)


def test_equal_to_captum_on_the_full_network(network: Any, head: PoolingHead) -> None:
    import torch
    from captum.attr import LayerGradCam

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
