"""An ONNX file loses one output and nothing else, whatever it holds."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from serving.detector import bundle
from serving.detector.onnxfile import without_output

names = st.text(min_size=1, max_size=12)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Models of any names, outputs (twice the same, too), weights and metadata; not all of them make sense."""
    outputs = draw(st.lists(names, max_size=4))
    nodes = [helper.make_node("Relu", [draw(names)], [name], name=draw(names)) for name in outputs]
    weights = [
        TensorProto(name=name, dims=[draw(st.integers(0, 2**40))], raw_data=draw(st.binary(max_size=300)))
        for name in draw(st.lists(names, max_size=3))
    ]
    graph = helper.make_graph(
        nodes,
        draw(names),
        [helper.make_tensor_value_info(draw(names), TensorProto.FLOAT, [1, "b"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, producer_name=draw(names))
    helper.set_model_props(model, draw(st.dictionaries(names, names, max_size=3)))
    return model


@given(models(), st.data())
def test_exactly_the_named_output_goes(model: onnx.ModelProto, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([o.name for o in model.graph.output]) if model.graph.output else names)
    edited = onnx.load_from_string(without_output(model.SerializeToString(), name))
    kept = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    assert edited == model


@given(st.binary(max_size=200))
def test_other_bytes_are_a_clear_error_or_stay_what_they_say(data: bytes) -> None:
    try:
        edited = without_output(data, "features")
    except ValueError as error:
        assert str(error).startswith("not an ONNX file")
    else:
        assert without_output(edited, "features") == edited


def test_weights_stay_to_the_last_bit(toy_bundle: Path) -> None:
    content = (toy_bundle / bundle.MODEL).read_bytes()
    before, after = (onnx.load_from_string(model).graph for model in (content, without_output(content, "features")))
    assert [output.name for output in before.output] == ["logit", "features"]
    assert [output.name for output in after.output] == ["logit"]
    for one, other in zip(before.initializer, after.initializer, strict=True):
        assert numpy_helper.to_array(one).tobytes() == numpy_helper.to_array(other).tobytes()


@pytest.mark.parametrize("cut", [1, 100])
def test_a_file_that_ends_early_is_refused(toy_bundle: Path, cut: int) -> None:
    with pytest.raises(ValueError, match="not an ONNX file"):
        without_output((toy_bundle / bundle.MODEL).read_bytes()[:-cut], "features")
