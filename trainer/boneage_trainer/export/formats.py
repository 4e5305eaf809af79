"""The file formats that a model can be exported to; each imports its own packages when it is used."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import RESEARCH_ONLY

ModelInputs = Mapping[str, Any]
"""``image``: uint8 (n, px, px, 1), and for models that use sex ``male``: float32 (n, 1), 1 or 0."""

Predict = Callable[[ModelInputs], Any]
"""Months (n,) for model inputs."""


@dataclass(frozen=True, slots=True)
class ExportSource:
    """The model as Keras loaded it, the file it came from, and its model card as Markdown."""

    model: Any
    file: Path
    card: str


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """`write` writes the file or folder `name` to a path; `open` loads it with the runtime of the format."""

    name: str
    write: Callable[[ExportSource, Path], None]
    open: Callable[[Path], Predict]


# ------------------------------------------------------------------------------------------- ONNX
_OPSET = 18


def write_onnx(source: ExportSource, path: Path) -> None:
    """Image (and male) in, months out, for any batch size; the metadata carries the notice and the model card.

    Keras' own ``model.export(format="onnx")`` turns the constants of a Normalization layer into inputs that the user
    would have to provide, and supports neither the grouped convolutions nor the GELU of ConvNeXt.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    frozen = _freeze(source.model)
    names = [tensor.name for tensor in source.model.inputs]
    renamed = {tensor.name: name for tensor, name in zip(frozen.inputs, names, strict=True)}
    for logger in (logging.getLogger("tf2onnx"), tf.get_logger()):
        logger.setLevel(logging.ERROR)
    exported, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(add_shapes=True), name="boneage",
        input_names=list(renamed), output_names=[frozen.outputs[0].name],
        tensors_to_rename={**renamed, frozen.outputs[0].name: "months"},
        opset=_OPSET, custom_op_handlers={"Erfc": (_convert_erfc, [])},
    )  # fmt: skip
    exported.doc_string = RESEARCH_ONLY
    onnx.helper.set_model_props(exported, {"research_only": RESEARCH_ONLY, "model_card": source.card})
    onnx.checker.check_model(exported)
    onnx.save(exported, str(path))


def _freeze(model: Any) -> Any:
    """The model as one graph that contains its weights."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=tensor.name) for tensor in model.inputs]
    call = tf.function(lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    # Eagerly, the compiled functions inside (Keras' grouped convolutions) become part of the graph: ONNX has no calls.
    tf.config.run_functions_eagerly(True)
    try:
        concrete = call.get_concrete_function(*signature)
    finally:
        tf.config.run_functions_eagerly(False)
    return convert_variables_to_constants_v2(concrete)


def _convert_erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """erfc(x) = 1 - erf(x): ONNX has only erf."""
    import tf2onnx

    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [node.input[0]])
    constant = graph.make_const(tf2onnx.utils.make_name("one"), np.array(1, np.float32))
    inputs = [constant.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, outputs=node.output, name=name, shapes=shapes, dtypes=dtypes)


def open_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["months"], dict(inputs))[0][:, 0]


# ------------------------------------------------------------------------------ SavedModel, TFLite
def write_savedmodel(source: ExportSource, path: Path) -> None:
    source.model.export(str(path), format="tf_saved_model", verbose=False)
    extra = path / "assets.extra"  # TensorFlow reserves this folder for files that it does not read
    extra.mkdir()
    (extra / "model_card.md").write_text(source.card, encoding="utf-8")


def open_savedmodel(path: Path) -> Predict:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def predict(inputs: ModelInputs) -> Any:
        tensors = {name: tf.convert_to_tensor(values) for name, values in inputs.items()}
        (months,) = loaded.signatures["serving_default"](**tensors).values()
        return np.asarray(months)[:, 0]

    return predict


def write_tflite(source: ExportSource, path: Path) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        source.model.export(folder, format="tf_saved_model", verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def open_tflite(path: Path) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(path)).get_signature_runner()

    def predict(inputs: ModelInputs) -> Any:
        (months,) = run(**inputs).values()
        return months[:, 0]

    return predict


# ------------------------------------------------------------------------------------------ Keras
def write_keras(source: ExportSource, path: Path) -> None:
    shutil.copyfile(source.file, path)


def open_keras(path: Path) -> Predict:
    from boneage_trainer.inference.model import call_model, load_model

    model = load_model(path)
    return lambda inputs: np.asarray(call_model(model, list(inputs.values()), training=False))[:, 0]


FORMATS = {
    "keras": ExportFormat("model.keras", write_keras, open_keras),
    "savedmodel": ExportFormat("saved_model", write_savedmodel, open_savedmodel),
    "onnx": ExportFormat("model.onnx", write_onnx, open_onnx),
    "tflite": ExportFormat("model.tflite", write_tflite, open_tflite),
}
