"""An exported graph arranged so that ONNX Runtime keeps its blocked layout (NCHWc) and the processor its cache.

The function stays the same; only the order of a few sums changes. For any network of convolutions:

* A mean over rows and columns becomes `GlobalAveragePool`, which exists in the blocked layout.
* A factor for each channel (of the normalisation) moves into the weights of the convolution behind it.
* A gate (b, c, 1, 1) is spread to the map it multiplies (`Resize`), and the batch is fixed to one image: the blocked
  layout multiplies maps of equal and known shapes only. Otherwise every squeeze-and-excitation costs two changes of
  layout of its widest map.
* Between two dense convolutions every node works on each channel by itself. Where the maps there outgrow a core's
  second-level cache, the channels go through in groups that fit.

Why and how much: `docs/adr/007-blocked-graph.md`.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

ONE_IMAGE_PX: Final = 96
"""From this input side on, a network with gates is faster one image at a time than in batches (EfficientNet-B0)."""
WIDE_BYTES: Final = 1_200_000
"""One image's maps of this size and more go through in groups of channels."""
GROUP_BYTES: Final = 700_000
"""Wanted size of a group's largest map, so that what a node reads and writes fits a second-level cache of 1.5 MB.

One block of channels is the smallest group, and may be larger."""
_BLOCK: Final = 16
"""Channels of one block of the layout on AVX-512; on AVX2 it is 8."""
_ELEMENTWISE: Final = frozenset(
    {"Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "Elu", "Tanh", "HardSigmoid", "HardSwish", "Gelu"}
)

Array = npt.NDArray[Any]


def block(model: ir.Model) -> None:
    """Arrange the graph of `model`, input (b, px, px, 3), in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "ReduceMean":
            _pool(graph, node)
        elif node.op_type == "Mul":
            _fold_factor(graph, node)
    px = graph.inputs[0].shape[1] if graph.inputs[0].shape is not None else 0
    gated = [node for node in graph if node.op_type == "Mul" and _gate_of(node) is not None]
    if gated and isinstance(px, int) and px >= ONE_IMAGE_PX:
        _fix_batch(graph)
        for node in gated:
            _spread_gate(graph, node)
    for node in list(graph):
        # an earlier split may have replaced it
        if node.graph is graph and _is_dense(node) and _bytes(node.outputs[0]) >= WIDE_BYTES:
            region = _region(graph, node)
            if region is not None:
                _split(graph, region)
    graph.sort()
    # the weights that were cut up
    common.RemoveUnusedNodesPass()(model)


def _pool(graph: ir.Graph, node: ir.Node) -> None:
    axes = _array(node.inputs[1]) if len(node.inputs) > 1 else None
    keeps = node.attributes.get_int("keepdims", 1) == 1
    source = node.inputs[0]
    if axes is None or source is None or not keeps or sorted(int(a) % 4 for a in axes.ravel()) != [2, 3]:
        return
    if source.shape is None or len(source.shape) != 4:
        return
    _replace(graph, node, ir.node("GlobalAveragePool", [source]))


def _fold_factor(graph: ir.Graph, node: ir.Node) -> None:
    map_, factor = node.inputs
    factors, scaled = _array(factor), node.outputs[0]
    if map_ is None or factors is None or factors.shape != (1, _channels(map_), 1, 1) or scaled.is_graph_output():
        return
    behind = [user for user, _ in scaled.uses()]
    if not all(_is_dense(user) and user.inputs[0] is scaled for user in behind):
        return
    for conv in behind:
        weight = conv.inputs[1]
        rows = _array(weight)
        assert weight is not None and rows is not None
        conv.replace_input_with(1, _constant(graph, f"{weight.name}_scaled", rows * factors))
    ir.convenience.replace_all_uses_with(scaled, map_)
    graph.remove(node, safe=True)


def _gate_of(node: ir.Node) -> ir.Value | None:
    """The factor (b, c, 1, 1) of a map (b, c, rows, columns), where `node` multiplies the two."""
    first, second = node.inputs
    for map_, gate in ((first, second), (second, first)):
        if map_ is None or gate is None or gate.producer() is None or _channels(gate) != _channels(map_):
            continue
        if _sides(gate) == (1, 1) and _sides(map_) not in (None, (1, 1)):
            return gate
    return None


def _fix_batch(graph: ir.Graph) -> None:
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    batch = graph.inputs[0].shape[0] if graph.inputs[0].shape is not None else None
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([1 if size == batch else size for size in value.shape])


def _spread_gate(graph: ir.Graph, node: ir.Node) -> None:
    gate = _gate_of(node)
    assert gate is not None
    map_ = next(value for value in node.inputs if value is not None and value is not gate)
    scales = _constant(
        graph, f"{node.outputs[0].name}_scales", np.array([1, 1, *(_sides(map_) or ())], dtype=np.float32)
    )
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    spread = _named(ir.node("Resize", [gate, None, scales], nearest), f"{node.outputs[0].name}_gate")
    spread.outputs[0].shape, spread.outputs[0].type = map_.shape, map_.type
    graph.insert_before(node, spread)
    node.replace_input_with(list(node.inputs).index(gate), spread.outputs[0])


@dataclass(frozen=True, slots=True)
class _Region:
    """Nodes that work on each of `channels` channels by itself, and the dense convolutions they stand between."""

    channels: int
    sources: list[ir.Node]
    inner: list[ir.Node]
    sinks: list[ir.Node]

    @property
    def groups(self) -> int:
        """The fewest groups of whole blocks of channels that fit; 1 where the channels cannot be grouped."""
        widest = max(_bytes(node.outputs[0]) for node in (*self.sources, *self.inner))
        even = [k for k in range(1, self.channels // _BLOCK + 1) if self.channels % (k * _BLOCK) == 0]
        return next((k for k in even if widest / k <= GROUP_BYTES), even[-1] if even else 1)


def _region(graph: ir.Graph, start: ir.Node) -> _Region | None:
    """What hangs together with the output of `start` channel by channel; None where it cannot be split."""
    channels = _channels(start.outputs[0])
    sources: set[ir.Node] = set()
    inner: set[ir.Node] = set()
    sinks: set[ir.Node] = set()
    waiting, seen = [start.outputs[0]], {start.outputs[0]}
    while waiting:
        value = waiting.pop()
        producer, consumers = value.producer(), [node for node, _ in value.uses()]
        if channels is None or producer is None or _channels(value) != channels or value.is_graph_output():
            return None
        sources |= {producer} if _is_dense(producer) else set()
        sinks |= {node for node in consumers if _is_dense(node)}
        near = {node for node in (producer, *consumers) if not _is_dense(node)}
        if not all(_is_channelwise(node, channels) for node in near):
            return None
        inner |= near
        around = {value for node in near for value in (*node.outputs, *_computed(node))} - seen
        seen |= around
        waiting += around
    if channels is None or not sinks or sinks & sources or any(sink.outputs[0].is_graph_output() for sink in sinks):
        return None
    in_order = [[node for node in graph if node in found] for found in (sources, inner, sinks)]
    region = _Region(channels, *in_order)
    return region if region.groups > 1 else None


def _split(graph: ir.Graph, region: _Region) -> None:
    size = region.channels // region.groups
    new: list[ir.Node] = []
    parts = [_part(graph, region, slice(at, at + size), new) for at in range(0, region.channels, size)]
    gone = [*region.sources, *region.inner]
    for sink in region.sinks:
        whole = sink.inputs[0]
        assert whole is not None
        pieces = [part[whole] for part in parts]
        if _sides(whole) == (1, 1):
            new.append(_named(ir.node("Concat", pieces, {"axis": 1}), f"{whole.name}_whole"))
            sink.replace_input_with(0, new[-1].outputs[0])
        else:
            new += _sum_of_parts(graph, sink, pieces, size)
            ir.convenience.replace_all_uses_with(sink.outputs[0], new[-1].outputs[0])
            new[-1].outputs[0].shape, new[-1].outputs[0].type = sink.outputs[0].shape, sink.outputs[0].type
            gone.append(sink)
    graph.extend(new)
    graph.remove(gone, safe=True)
    graph.sort()


def _part(graph: ir.Graph, region: _Region, channels: slice, new: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Append to `new` the region's nodes for one group of channels; returns their outputs by those of the whole."""
    part: dict[ir.Value, ir.Value] = {}
    for node in (*region.sources, *region.inner):
        inputs = [_part_of_input(graph, node, value, part, channels) for value in node.inputs]
        attributes: dict[str, ir.Attr] = dict(node.attributes)
        # a source reads the whole map before it, a depthwise convolution its own channels
        if node.op_type == "Conv" and node not in region.sources:
            attributes["group"] = ir.AttrInt64("group", channels.stop - channels.start)
        made = _named(ir.node(node.op_type, inputs, attributes), f"{node.outputs[0].name}_from_{channels.start}")
        part[node.outputs[0]] = made.outputs[0]
        new.append(made)
    return part


def _part_of_input(
    graph: ir.Graph, node: ir.Node, value: ir.Value | None, part: dict[ir.Value, ir.Value], channels: slice
) -> ir.Value | None:
    if value is None or value in part:
        return part[value] if value is not None else None
    # weights and biases of a convolution have one row for each channel they make
    rows = _array(value) if node.op_type == "Conv" and value is not node.inputs[0] else None
    return value if rows is None else _constant(graph, f"{value.name}_from_{channels.start}", rows[channels])


def _sum_of_parts(graph: ir.Graph, sink: ir.Node, pieces: list[ir.Value], size: int) -> list[ir.Node]:
    """The convolution `sink` as a sum of convolutions of its input's pieces, `size` channels each."""
    weight, name = sink.inputs[1], sink.outputs[0].name
    rows = _array(weight)
    assert weight is not None and rows is not None
    nodes: list[ir.Node] = []
    for index, piece in enumerate(pieces):
        columns = _constant(graph, f"{weight.name}_of_{index}", rows[:, index * size : (index + 1) * size])
        bias = sink.inputs[2:] if index == 0 else ()
        partial = _named(ir.node("Conv", [piece, columns, *bias], dict(sink.attributes)), f"{name}_of_{index}")
        before = nodes[-1:]
        nodes.append(partial)
        if before:
            total = ir.node("Add", [before[0].outputs[0], partial.outputs[0]])
            nodes.append(_named(total, f"{name}_up_to_{index}"))
    return nodes


def _is_dense(node: ir.Node) -> bool:
    """A convolution that mixes all channels, with weights that stand in the file."""
    return (
        node.op_type == "Conv"
        and node.attributes.get_int("group", 1) == 1
        and all(_array(value) is not None for value in node.inputs[1:])
    )


def _is_channelwise(node: ir.Node, channels: int) -> bool:
    """Whether a channel of the output depends on the same channel of the inputs only."""
    constants = [array for value in node.inputs if (array := _array(value)) is not None]
    match node.op_type:
        case "Conv":
            return bool(constants) and node.attributes.get_int("group", 1) == channels == len(constants[0])
        case "Resize":
            return len(constants) == 1 and constants[0][:2].tolist() == [1, 1]
        case "GlobalAveragePool":
            return True
        case kind:
            return kind in _ELEMENTWISE and all(array.size == 1 for array in constants)


def _computed(node: ir.Node) -> list[ir.Value]:
    """The inputs that are no constants."""
    return [value for value in node.inputs if value is not None and _array(value) is None]


def _array(value: ir.Value | None) -> Array | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.val(name, tensor.dtype, list(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    ir.convenience.replace_nodes_and_values(graph, old, [old], [new], old.outputs, new.outputs)


def _named(node: ir.Node, name: str) -> ir.Node:
    node.outputs[0].name = name
    return node


def _channels(value: ir.Value) -> int | None:
    shape = value.shape
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def _sides(value: ir.Value) -> tuple[int, int] | None:
    shape = value.shape
    if shape is None or len(shape) != 4 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
        return None
    return shape[2], shape[3]


def _bytes(value: ir.Value) -> int:
    """Size of one image's map in float32; 0 where it is unknown."""
    shape = value.shape
    sizes = shape.dims[1:] if shape is not None else (0,)
    return 4 * math.prod(size if isinstance(size, int) else 0 for size in sizes)
