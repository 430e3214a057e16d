"""ONNX files without the ONNX library: the one edit a server makes, which needs three of the format's many fields."""

from functools import cache
from typing import Any


def without_output(model: bytes, name: str) -> bytes:
    """The same model, whose graph no longer gives out `name`: a runtime then skips what only that output needs.

    Args:
        model: an ONNX file's content, weights included.
        name: of the output; nothing changes where there is none of this name.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    from google.protobuf.message import DecodeError

    message = _model_class()()
    try:
        message.ParseFromString(model)
    except DecodeError as error:
        raise ValueError(f"not an ONNX file: {error}") from error
    if message.HasField("graph"):
        kept = [output for output in message.graph.output if output.name != name]
        del message.graph.output[:]
        message.graph.output.extend(kept)
    edited: bytes = message.SerializeToString()
    return edited


@cache
def _model_class() -> Any:
    """A protobuf message for what is edited; all else passes through as unknown fields. Source: onnx.proto."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnx_outputs.proto", package="onnx_outputs", syntax="proto2")
    for message, member, number, kind in (
        ("ValueInfoProto", "name", 1, None),
        ("GraphProto", "output", 12, "ValueInfoProto"),
        ("ModelProto", "graph", 7, "GraphProto"),
    ):
        added = file.message_type.add(name=message).field.add(name=member, number=number)
        added.label = field.LABEL_REPEATED if member == "output" else field.LABEL_OPTIONAL
        added.type = field.TYPE_STRING if kind is None else field.TYPE_MESSAGE
        if kind is not None:
            added.type_name = f".onnx_outputs.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_outputs.ModelProto"))
