"""TensorFlow's SavedModel, with the signature ``serving_default``: image (and male) by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from boneage_trainer.handover.formats import Answer, Format, Inputs, Source


def write(source: Source, path: Path) -> None:
    source.model.export(str(path), format="tf_saved_model", verbose=False)
    extra = path / "assets.extra"  # the place TensorFlow keeps for files that are none of its business
    extra.mkdir()
    (extra / "model_card.md").write_text(source.card, encoding="utf-8")


def opened(path: Path) -> Answer:
    loaded = tf.saved_model.load(str(path))

    def answer(inputs: Inputs) -> Any:
        tensors = {name: tf.convert_to_tensor(values) for name, values in inputs.items()}
        (months,) = loaded.signatures["serving_default"](**tensors).values()
        return np.asarray(months)[:, 0]

    return answer


FORMAT = Format("saved_model", write, opened)
