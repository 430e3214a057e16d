"""A trained network to the ONNX graph that is served."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.train.model import Network, linear_head


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

    graph = _Graph(network, model).eval()
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
