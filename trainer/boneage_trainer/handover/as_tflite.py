"""LiteRT (TensorFlow Lite), float32 and built-in operations only: its signature takes image (and male) by name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from boneage_trainer.handover.formats import Answer, Format, Inputs, Source


def write(source: Source, path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        source.model.export(place, format="tf_saved_model", verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(place).convert())


def opened(path: Path) -> Answer:
    run = Interpreter(model_path=str(path)).get_signature_runner()

    def answer(inputs: Inputs) -> Any:
        (months,) = run(**inputs).values()
        return months[:, 0]

    return answer


FORMAT = Format("model.tflite", write, opened)
