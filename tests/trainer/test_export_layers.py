"""Layers that other backbones have and the residual network has not: each of them once broke a converter."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RunFolder
from boneage_trainer.export.command import TOLERANCE_MONTHS, export_model

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the converters' own
    *(
        pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
        for name in ("onnx", "onnxruntime", "tf2onnx", "ai_edge_litert")
    ),
]
PX = 32


def network(*between: Any) -> Any:
    """Image to months without sex, through the layers `between`."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((PX, PX, 1), dtype="uint8", name="image")
    x = layers.Concatenate()([layers.Rescaling(1 / 255)(image)] * 3)
    for layer in between:
        x = layer(x)
    return keras.Model(image, layers.Rescaling(100.0, name="months")(layers.Dense(1)(layers.GlobalMaxPooling2D()(x))))


def normalization() -> Any:
    """EfficientNetV2: its constants became inputs of the ONNX model."""
    from keras import layers

    return network(layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3]), layers.Conv2D(4, 3))


def grouped_and_gelu() -> Any:
    """ConvNeXt: a compiled function within the graph, and erfc, which ONNX does not have."""
    from keras import layers

    norm = layers.LayerNormalization(epsilon=1e-6)
    return network(layers.Conv2D(8, 4, strides=4), layers.Conv2D(8, 7, padding="same", groups=8), norm,
                   layers.Dense(16, activation="gelu"))  # fmt: skip


def separable() -> Any:
    """Xception."""
    from keras import layers

    return network(layers.SeparableConv2D(8, 3, padding="same"), layers.BatchNormalization(), layers.Activation("silu"))


@pytest.mark.parametrize("make", [normalization, grouped_and_gelu, separable])
def test_it_predicts_the_same(make: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    make().save(run.model)
    exports = export_model(run, ["savedmodel", "onnx", "tflite"], tmp_path / "out", None)
    assert max(export["largest_difference_months"] for export in exports) < TOLERANCE_MONTHS
