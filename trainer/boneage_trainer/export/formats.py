"""The file formats that a model can be exported to; each imports its own packages when it is asked for."""

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
from boneage_trainer.inference import model as inference_model

Inputs = Mapping[str, Any]
"""``image``: uint8 (n, px, px, 1), and for models that read the sex ``male``: float32 (n, 1), 1 or 0."""

Answer = Callable[[Inputs], Any]


@dataclass(frozen=True, slots=True)
class Source:
    """What is handed over: the model as Keras loaded it, the file it came from, and its card as Markdown."""

    model: Any
    file: Path
    card: str


@dataclass(frozen=True, slots=True)
class Format:
    """`write` makes the file or folder `name` at a path; `open` loads it in its own runtime, predicting months (n,)."""

    name: str
    write: Callable[[Source, Path], None]
    open: Callable[[Path], Answer]


_OPSET = 18


def write_onnx(source: Source, path: Path) -> None:
    """Image (and male) in, months out, any number of images at once; its metadata carries the notice.

    Keras' own ``model.export(format="onnx")`` leaves the constants of a Normalization layer as inputs that the user
    would have to give, and knows neither the grouped convolutions nor the GELU of ConvNeXt.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

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
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

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
    import tf2onnx

    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [node.input[0]])
    one = graph.make_const(tf2onnx.utils.make_name("one"), np.array(1, np.float32))
    inputs = [one.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, outputs=node.output, name=name, shapes=shapes, dtypes=dtypes)


def open_onnx(path: Path) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["months"], dict(inputs))[0][:, 0]


def write_savedmodel(source: Source, path: Path) -> None:
    source.model.export(str(path), format="tf_saved_model", verbose=False)
    extra = path / "assets.extra"  # the place TensorFlow keeps for files that are none of its business
    extra.mkdir()
    (extra / "model_card.md").write_text(source.card, encoding="utf-8")


def open_savedmodel(path: Path) -> Answer:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def answer(inputs: Inputs) -> Any:
        tensors = {name: tf.convert_to_tensor(values) for name, values in inputs.items()}
        (months,) = loaded.signatures["serving_default"](**tensors).values()
        return np.asarray(months)[:, 0]

    return answer


def write_tflite(source: Source, path: Path) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as place:
        source.model.export(place, format="tf_saved_model", verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(place).convert())


def open_tflite(path: Path) -> Answer:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(path)).get_signature_runner()

    def answer(inputs: Inputs) -> Any:
        (months,) = run(**inputs).values()
        return months[:, 0]

    return answer


def write_keras(source: Source, path: Path) -> None:
    shutil.copyfile(source.file, path)


def open_keras(path: Path) -> Answer:
    model = inference_model.load(path)
    return lambda inputs: np.asarray(model(list(inputs.values()), training=False))[:, 0]


FORMATS = {
    "keras": Format("model.keras", write_keras, open_keras),
    "savedmodel": Format("saved_model", write_savedmodel, open_savedmodel),
    "onnx": Format("model.onnx", write_onnx, open_onnx),
    "tflite": Format("model.tflite", write_tflite, open_tflite),
}
