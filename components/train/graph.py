"""A trained network to the ONNX graph that is served."""

import copy
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from components.train.model import Network, linear_head

_SAME: Final = 1e-4
"""Share of a feature map's largest value by which a network without batch norms may differ from the one with them."""


class _Graph(nn.Module):
    """What the server runs: uint8 pixels (n, px, px, 3) to logit (n,) and feature map; normalisation inside."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: Network, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.head = linear_head(model)
        self.register_buffer("mean", torch.tensor(network.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(network.std).view(1, 3, 1, 1) * 255))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # ONNX Runtime turns float32 faster than uint8
        x = (image.float().permute(0, 3, 1, 2) - self.mean) * self.scale
        features = self.model.forward_features(x)
        # the head that Grad-CAM explains; `model.build` has proved that it is the network's own
        return self.head(features.mean((2, 3), keepdim=True).flatten(1)).squeeze(1), features


def write_onnx(network: Network, model: nn.Module, input_px: int, path: Path) -> None:
    """Export the graph: input `image` uint8 (b, px, px, 3); outputs `logit` (b,) and `features` (b, c, rows, columns).

    Batch norms are folded into their convolutions and the weights stand in the file itself. The graph is arranged for
    ONNX Runtime (see `components.train.blocked`), which may fix b to 1.
    """
    import logging

    from components.train.blocked import block

    graph = _Graph(network, _folded(model, input_px)).eval()
    # the exporter reports every pass it makes
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    program = torch.onnx.export(
        graph,
        (torch.zeros((2, input_px, input_px, 3), dtype=torch.uint8),),
        dynamo=True,
        input_names=["image"],
        output_names=["logit", "features"],
        dynamic_shapes={"image": {0: torch.export.Dim("b")}},
        optimize=True,
        verbose=False,
    )
    assert program is not None  # torch's signature covers its older exporter, too
    block(program.model)
    # the exporter notes a stack trace at every node: paths of the machine that trained are no part of a model
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.save(path, external_data=False)


@torch.no_grad()
def _folded(model: nn.Module, px: int) -> nn.Module:
    """A copy with its batch norms folded into the convolutions before them, which takes torch a third less to export.

    What follows what is seen in one pass. A network for which that says too little, because a convolution's map goes
    elsewhere too or its weights are no plain ones, is given back as it is; ONNX Runtime's own passes fold it then.
    """
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pixels = torch.linspace(-2, 2, 3 * px * px).view(1, 3, px, px)
    folded = copy.deepcopy(model).eval()
    for name, convolution, norm in _normed(folded, pixels):
        _put(folded, name[0], fuse_conv_bn_eval(convolution, norm))
        # timm's batch norms have the activation behind them in themselves
        _put(folded, name[1], nn.Sequential(*(part for kind, part in norm.named_children() if kind in ("drop", "act"))))
    wanted, found = (each.forward_features(pixels) for each in (_timm(model), _timm(folded)))
    same = bool((found - wanted).abs().max() <= _SAME * max(1.0, float(wanted.abs().max())))
    return folded if same else model


def _normed(model: nn.Module, pixels: Tensor) -> list[tuple[tuple[str, str], nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output a batch norm takes as it is, by their names."""
    names = {module: name for name, module in model.named_modules()}
    # the maps are kept until the end: another one must not get the number of one that is gone
    maps: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[tuple[str, str], nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(module: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            maps[id(output)] = module, output

    def normed(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.BatchNorm2d) and id(given[0]) in maps:
            convolution = maps[id(given[0])][0]
            found.append(((names[convolution], names[module]), convolution, module))

    hooks = [module.register_forward_hook(convolved) for module in names]
    hooks += [module.register_forward_pre_hook(normed) for module in names]
    try:
        _timm(model).forward_features(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _timm(model: nn.Module) -> Any:
    return model
