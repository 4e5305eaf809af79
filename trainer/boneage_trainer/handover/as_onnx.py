"""ONNX: image (and male) in, months out, any number of images at once; its metadata carries the notice.

Keras' own ``model.export(format="onnx")`` is not taken: it leaves the constants of a Normalization layer as inputs
that the user would have to give, and knows neither the grouped convolutions nor the GELU of ConvNeXt.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from boneage_trainer.contract import RESEARCH_ONLY
from boneage_trainer.handover.formats import Answer, Format, Source

_OPSET = 18


def write(source: Source, path: Path) -> None:
    frozen = _frozen(source.model)
    names = [tensor.name for tensor in source.model.inputs]
    renamed = {tensor.name: name for tensor, name in zip(frozen.inputs, names, strict=True)}
    for talker in (logging.getLogger("tf2onnx"), tf.get_logger()):
        talker.setLevel(logging.ERROR)
    made, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(add_shapes=True), name="boneage",
        input_names=list(renamed), output_names=[frozen.outputs[0].name],
        tensors_to_rename={**renamed, frozen.outputs[0].name: "months"},
        opset=_OPSET, custom_op_handlers={"Erfc": (_erfc, [])},
    )  # fmt: skip
    made.doc_string = RESEARCH_ONLY
    onnx.helper.set_model_props(made, {"research_only": RESEARCH_ONLY, "model_card": source.card})
    onnx.checker.check_model(made)
    onnx.save(made, str(path))


def _frozen(model: Any) -> Any:
    """The model as one graph with its weights in it."""
    signature = [tf.TensorSpec((None, *one.shape[1:]), one.dtype, name=one.name) for one in model.inputs]
    call = tf.function(lambda *given: model(list(given) if len(given) > 1 else given[0], training=False))
    # Eagerly, the compiled functions inside (Keras' grouped convolutions) become part of the graph: ONNX has no calls.
    tf.config.run_functions_eagerly(True)
    try:
        concrete = call.get_concrete_function(*signature)
    finally:
        tf.config.run_functions_eagerly(False)
    return convert_variables_to_constants_v2(concrete)


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """erfc(x) = 1 - erf(x): ONNX has only erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [node.input[0]])
    one = graph.make_const(tf2onnx.utils.make_name("one"), np.array(1, np.float32))
    inputs = [one.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, outputs=node.output, name=name, shapes=shapes, dtypes=dtypes)


def opened(path: Path) -> Answer:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["months"], dict(inputs))[0][:, 0]


FORMAT = Format("model.onnx", write, opened)
