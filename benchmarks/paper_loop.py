"""The student paper's training from its files to its predictions, rewritten for current Keras.

    python benchmarks/paper_loop.py LABELS.csv OUT --epochs 15

`paper.py` runs it as the other side. LABELS.csv has path,boneage. Prints one JSON object: seconds by part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from tensorflow.keras.preprocessing.image import ImageDataGenerator

SIZE_PX = 224


def model() -> Any:
    body = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIZE_PX, SIZE_PX, 3))
    body.trainable = False
    layers = [
        body, keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(128, activation="relu"),
        keras.layers.BatchNormalization(), keras.layers.Dense(1),
    ]  # fmt: skip
    made = keras.Sequential(layers)
    made.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return made


def flow(generator: Any, frame: pd.DataFrame, batch_size: int, **more: Any) -> Any:
    with contextlib.redirect_stdout(sys.stderr):  # it prints how many files it found
        return generator.flow_from_dataframe(
            frame, x_col="path", y_col="boneage", class_mode="raw", target_size=(SIZE_PX, SIZE_PX),
            batch_size=batch_size, **more,
        )  # fmt: skip


class PrintEpochs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        print(f"paper's epoch {epoch + 1}: {logs}", file=sys.stderr, flush=True)


def train(frame: pd.DataFrame, out: Path, epochs: int) -> dict[str, float]:
    """Trains on 80 % of `frame`, a fifth of that for validation, and predicts the rest once."""
    order = np.random.RandomState(2018).permutation(len(frame))
    test_count = -(-len(frame) // 5)
    kept, test = frame.iloc[order[test_count:]], frame.iloc[order[:test_count]]
    started_s = time.perf_counter()
    split = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
    network = model()
    callbacks = [
        keras.callbacks.EarlyStopping(patience=5),
        keras.callbacks.ModelCheckpoint(str(out / "best.keras"), save_best_only=True),
        PrintEpochs(),
    ]
    history = network.fit(
        flow(split, kept, 32, subset="training", shuffle=True, seed=42),
        validation_data=flow(split, kept, 256, subset="validation", shuffle=True, seed=42),
        epochs=epochs, callbacks=callbacks, verbose=0,
    )  # fmt: skip
    fitted_s = time.perf_counter()
    network.predict(flow(ImageDataGenerator(rescale=1 / 255), test, 256, shuffle=False), verbose=0)
    done_s = time.perf_counter()
    return {"fit_s": fitted_s - started_s, "predict_s": done_s - fitted_s, "epochs": len(history.history["loss"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    json.dump(train(pd.read_csv(given.labels), given.out, given.epochs), sys.stdout)
    print()


if __name__ == "__main__":
    main()
