"""The parts that figures depend on: starting weights, resize, augmentation, sharding, calibration."""

import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch import nn

from components.train.augment import _corruptions, augment, blur, recompress
from components.train.calibrate import calibrate, choose_threshold
from components.train.config import AugmentConfig, TrainConfig
from components.train.dataset import Decoded, batches, epoch_order
from components.train.graph import _folded
from components.train.model import build, load_lite0, resize
from pipelines.cli.app import run_app
from serving.detector.preprocess import to_input
from tests.components.train.packed import TINY

PLAIN = AugmentConfig()


def test_the_packaged_imagenet_weights_know_a_photo() -> None:
    import timm
    from timm.data.imagenet_info import ImageNetInfo

    photo = files("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    with photo.open("rb") as file:
        pixels = to_input(Image.open(file).convert("RGB"), 224)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    load_lite0(model)
    with torch.no_grad():
        scores = model((torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5)[0]
    names = [ImageNetInfo().index_to_description(int(i)) for i in scores.topk(2).indices]
    assert any("military uniform" in name for name in names), names


@given(st.integers(16, 200), st.integers(16, 200), st.sampled_from([32, 64, 128]), st.integers(0, 99))
@settings(max_examples=25)
def test_the_device_resize_is_the_servers_within_one_level(height: int, width: int, side: int, seed: int) -> None:
    # beyond twice the input the server may shrink by a box filter first; the cache never holds such images
    height, width = min(height, 2 * side), min(width, 2 * side)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = resize(torch.from_numpy(pixels[None]), side)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - to_input(Image.fromarray(pixels), side)).max() <= 1


def test_blur_is_scipys_gaussian() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    sigmas = np.array([0.0, 0.7, 1.3])
    ours = blur(images, sigmas)
    assert np.array_equal(ours[0], images[0])
    for image, result, sigma in zip(images[1:], ours[1:], sigmas[1:], strict=True):
        expected = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest", truncate=4)
        assert np.abs(result - expected).max() <= 1.6


def test_augmentation_repeats_by_seed_and_never_writes_to_its_input() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (24, 32, 40, 3), dtype=np.uint8)
    before = batch.copy()
    first, again, other = (augment(batch, np.random.default_rng(seed), PLAIN) for seed in (5, 5, 6))
    assert first.shape == batch.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(batch, before)
    assert np.array_equal(augment(batch, np.random.default_rng(5), AugmentConfig(enabled=False)), batch)


@given(st.integers(0, 4), st.integers(1, 60), st.integers(0, 99))
def test_no_image_gets_more_corruptions_than_allowed(most: int, n: int, seed: int) -> None:
    config = AugmentConfig(resample_p=0.9, blur_p=0.9, noise_p=0.9, jpeg_p=0.9, most_corruptions=most)
    unlimited = config.model_copy(update={"most_corruptions": 4})
    chosen, wanted = (_corruptions(n, np.random.default_rng(seed), c) for c in (config, unlimited))
    assert chosen.shape == (4, n)
    assert not (chosen & ~wanted).any()
    assert np.array_equal(chosen.sum(axis=0), wanted.sum(axis=0).clip(max=most))


def test_augmentation_keeps_to_the_number_of_corruptions() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    unframed = {"turn_p": 0, "crop_p": 0, "collage_p": 0, "canvas_p": 0}
    every = {**unframed, "flip_p": 0, "brightness": 0, "resample_p": 1, "blur_p": 1, "noise_p": 1, "jpeg_p": 1}
    untouched, changed = (
        augment(batch, np.random.default_rng(0), AugmentConfig.model_validate({**every, "most_corruptions": most}))
        for most in (0, 1)
    )
    assert np.array_equal(untouched, batch)
    assert (changed != batch).any(axis=(1, 2, 3)).mean() > 0.7  # a blur of next to nothing leaves a picture as it is


def test_of_too_many_corruptions_each_has_the_same_chance() -> None:
    config = AugmentConfig(resample_p=1, blur_p=1, noise_p=1, jpeg_p=1, most_corruptions=1)
    assert _corruptions(4000, np.random.default_rng(0), config).mean(axis=1) == pytest.approx([0.25] * 4, abs=0.03)


def test_lower_jpeg_quality_changes_more() -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64))[..., None].repeat(3, 2).astype(np.uint8)
    noisy = np.random.default_rng(0).normal(smooth, 10).clip(0, 255).astype(np.uint8)
    errors = [np.abs(recompress(noisy, quality, 2).astype(int) - noisy).mean() for quality in (95, 75, 40)]
    assert errors == sorted(errors)


@given(st.integers(1, 200), st.integers(0, 9), st.integers(0, 99), st.integers(1, 5))
def test_ranks_see_disjoint_shards_of_equal_length(n: int, epoch: int, seed: int, world_size: int) -> None:
    shards = [epoch_order(n, epoch, seed, rank, world_size) for rank in range(world_size)]
    assert {len(shard) for shard in shards} == {n // world_size}
    together = np.concatenate(shards)
    assert len(set(together.tolist())) == len(together)


def test_batches_do_not_depend_on_the_number_of_loader_threads() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 4, 32, 32, 3), dtype=np.uint8)
    data = Decoded(pixels, np.arange(40, dtype=np.float32), np.full(40, ""), 1.0)
    order = epoch_order(40, 0, 0)
    one, many = (list(batches(data, order, 16, (0, 0, 0), PLAIN, threads)) for threads in (1, 4))
    assert len(one) == len(many) == 2
    for a, b in zip(one, many, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert np.array_equal(a.labels, b.labels)


def test_a_part_of_each_photo_is_cut_at_its_own_place_and_never_resized() -> None:
    places = np.arange(48 * 64).reshape(48, 64)
    photo = np.stack([places // 256, places % 256, np.zeros_like(places)], axis=2).astype(np.uint8)
    data = Decoded(photo[None, None].repeat(64, 0), np.zeros(64, dtype=np.float32), np.full(64, ""), 1.0)
    (batch,) = batches(data, np.arange(64), 64, (0,), AugmentConfig(enabled=False), 1, part=0.5)
    assert batch.pixels.shape == (64, 24, 32, 3)
    corners = batch.pixels[:, 0, 0].astype(int) @ [256, 1, 0]
    tops, lefts = corners // 64, corners % 64
    for top, left, part in zip(tops, lefts, batch.pixels, strict=True):
        assert np.array_equal(part, photo[top : top + 24, left : left + 32])
    assert (tops.min(), lefts.min()) < (4, 4) and (tops.max(), lefts.max()) > (20, 28)


def test_native_crops_are_parts_already() -> None:
    with pytest.raises(ValidationError, match="part goes with views=whole only"):
        TrainConfig.model_validate(TINY | {"part": 0.5, "views": "native"})


def test_calibration_finds_the_temperature_and_bias_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 6, 20_000).astype(np.float32)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(logits / 2.5 + 0.7)))).astype(np.float32)
    found = calibrate(logits, labels, np.empty(0, dtype=np.float32), TrainConfig())
    assert found.rule.temperature == pytest.approx(2.5, rel=0.06)
    assert found.rule.bias == pytest.approx(0.7, abs=0.06)
    assert found.log_loss_after < found.log_loss_before
    separated = calibrate(np.sign(labels - 0.5), labels, np.empty(0, dtype=np.float32), TrainConfig())
    assert 0 < separated.rule.probabilities(1.0) < 1


def test_threshold_policies_keep_their_promises() -> None:
    rng = np.random.default_rng(1)
    labels = (np.arange(8_000) % 2).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-rng.normal(2 * (2 * labels - 1), 1.5)))
    assert choose_threshold(probabilities, labels, TrainConfig(false_positive_cost=3)) == 0.75

    at = choose_threshold(probabilities, labels, TrainConfig(threshold_policy="target_fpr", target_fpr=0.02))
    assert np.mean(probabilities[labels == 0] >= at) <= 0.02

    best = choose_threshold(probabilities, labels, TrainConfig(threshold_policy="max_f1"))

    def f1(threshold: float) -> float:
        said = probabilities >= threshold
        return 2 * (said & (labels == 1)).sum() / (said.sum() + labels.sum())

    assert f1(best) == pytest.approx(max(f1(t) for t in probabilities))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"label_smoothing": 0.1}, "less than or equal to 0.05"),
        ({"weights_uri": "x.safetensors"}, "needs weights_sha256"),
        ({"weights": "package"}, "tf_efficientnet_lite0 only"),
        ({"augment": {"jpeg_quality_min": 90, "jpeg_quality_max": 50}}, "jpeg_quality_min is above"),
        ({"epochz": 3}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_knobs_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(knobs)


def test_the_verb_says_errors_in_one_line(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--dataset", str(toy_data), "-o", str(tmp_path / "b"), "--no-track"]
    cases = {
        "error: train.augment.jpeg_p: input should be less than or equal to 1 (got 7)": "train.augment.jpeg_p=7",
        "error: train.epochs: input should be a valid integer": "train.epochs=many",
        "error: --set 'train.epochs': write it as section.key=value": "train.epochs",
        "error: unknown architecture 'efficientnet_b00'": "train.architecture=efficientnet_b00",
    }
    for expected, setting in cases.items():
        assert run_app([*command, "--set", "train.weights=none", "--set", setting]) == 1
        said = capsys.readouterr().err
        assert said.startswith(expected)
        assert said.count("\n") == 1


def test_the_last_epoch_is_always_at_full_resolution() -> None:
    config = TrainConfig.model_validate(TINY | {"epochs": 2, "low_res_epochs": 9})
    assert [config.side_px(epoch) for epoch in range(2)] == [32, 64]
    parts = config.model_copy(update={"part": 0.75})
    assert [parts.side_px(epoch) for epoch in range(2)] == [24, 48]


class _Doubled(nn.Conv2d):
    """A convolution whose weights are not what it multiplies by."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_batch_norms_fold_where_that_changes_nothing_and_stay_where_it_would() -> None:
    model = build(TrainConfig(architecture="test_efficientnet", weights="none", input_px=64)).model
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    model.eval()
    before = copy.deepcopy(model.state_dict())
    folded = _folded(model, 64)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [*folded.state_dict()] != [*before]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    odd: Any = copy.deepcopy(model)
    plain = odd.conv_stem
    odd.conv_stem = _Doubled(3, plain.out_channels, 3, 2, 1, bias=False)
    odd.bn1.bias.data += 1  # folded into the convolution it would be doubled, too
    assert _folded(odd, 64) is odd
