"""Saved models and their predictions: the one path of `predict`, `train check`, `train evaluate` and a run's end."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pack import Pack
from boneage_trainer.inference.views import Images, make_view
from boneage_trainer.train.device import Device, find_device
from boneage_trainer.train.feed import Feed, split_batches

BATCH, _MAX_BATCH = 32, 128
"""Images predicted at a time: fewer the larger they are, for the memory of their feature maps; 128 up to 128 px."""
Floats = npt.NDArray[np.float32]


def load_model(path: Path) -> Any:
    """The regressor at `path`: inputs ``image`` (n, px, px, 1) and perhaps ``male`` (n, 1), output months (n, 1).

    Raises:
        ContractError: the file does not exist, Keras cannot load it, or the model has other inputs.
    """
    if not path.is_file():
        raise ContractError(f"{path} does not exist; the trainer writes it when a run is complete")
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ContractError(f"Keras cannot load {path}: {' '.join(str(error).split())[:200]}") from None
    names = [tensor.name for tensor in model.inputs]
    if names not in (["image"], ["image", "male"]):
        raise ContractError(f"{path} must have the inputs image and optionally male, not {', '.join(names)}")
    return model


def model_inputs(model: Any, images: Images, males: Floats) -> list[Any]:
    """What `model` takes for images (n, px, px) and males (n,), 1 or 0; sex is left out if it has no such input."""
    return [images[..., None], males[:, None]][: len(model.inputs)]


def call_model(model: Any, inputs: Sequence[Any], training: bool) -> Any:
    """The output of `model` for a sequence of one or more inputs."""
    return model(list(inputs) if len(inputs) > 1 else inputs[0], training=training)


class BatchPredictor:
    """Runs `model` batch by batch on `device`; shorter batches are padded, so that it is traced for one size only."""

    def __init__(self, model: Any, device: Device) -> None:
        self._device, self._size = device, 0

        @tf.function(jit_compile=device.jit and not device.strategy)  # type: ignore[untyped-decorator]
        def on_replica(inputs: Any) -> Any:
            return call_model(model, inputs, training=False)

        self._run = on_replica
        if device.strategy:
            self._run = tf.function(lambda inputs: device.strategy.run(on_replica, args=(inputs,)))

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """The outputs (n, ...) for `inputs`, each (n, ...), as an array."""
        count, replicas = len(inputs[0]), self._device.local
        self._size = max(self._size, -(-count // replicas) * replicas)
        padded = list(inputs)
        if missing := self._size - count:
            padded = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in inputs]
        if not self._device.strategy:
            return np.asarray(self._run(tuple(tf.convert_to_tensor(array) for array in padded)))[:count]
        size = self._size // replicas

        def piece(context: Any) -> Any:
            """Every machine predicts the whole batch, and cuts it over its own devices."""
            start = context.replica_id_in_sync_group % replicas * size
            return tuple(tf.convert_to_tensor(array[start : start + size]) for array in padded)

        pieces = self._device.strategy.experimental_distribute_values_from_function(piece)
        outputs = self._device.strategy.experimental_local_results(self._run(pieces))
        return np.concatenate([np.asarray(output) for output in outputs])[:count]


class AgePredictor:
    """Predicts ages in months with `model` (see `load_model`), at most `batch` images at a time (default: by size).

    Every age that this project reports comes from here. `device` is by default every GPU of this machine, else the CPU.
    """

    def __init__(self, model: Any, device: Device | None = None, batch: int | None = None) -> None:
        self.size_px: int = model.inputs[0].shape[1]
        self.needs_sex = len(model.inputs) > 1
        self._model = model
        self._batch = batch or max(BATCH, min(_MAX_BATCH, _MAX_BATCH * 128**2 // self.size_px**2))
        self._predict = BatchPredictor(model, device or find_device())

    def predict(self, images: Images, males: Floats, views: int = 1) -> Floats:
        """Months, float32 (views, n), for images (n, px, px) uint8 and males (n,), 1 or 0; view 0 is the plain image.

        Raises:
            ContractError: the images have another size than the model's.
        """
        self._check_size(images.shape[1], "the images have")
        months = []
        for rows in split_batches(range(len(images)), self._batch):
            inputs = (model_inputs(self._model, make_view(images[rows], view), males[rows]) for view in range(views))
            months.append(np.stack([self._predict(arrays)[:, 0] for arrays in inputs]))
        return np.concatenate(months, axis=1)

    def predict_pack(
        self, pack: Pack, rows: Sequence[int], views: int, before_batch: Callable[[], None] = lambda: None
    ) -> Floats:
        """Months, float32 (views, n), in the order of `rows`; images are read ahead by threads.

        `before_batch` is called before each batch, and may raise to stop.

        Raises:
            ContractError: the pack has images of another size than the model's.
        """
        self._check_size(pack.images.shape[1], f"the pack has {len(pack.ids)} of")
        feed = Feed(pack, rows, self._batch, 0, augment=False)
        months = [np.empty((views, 0), np.float32)]
        for batch, images in feed.load_batches(split_batches(rows, self._batch), 0):
            before_batch()
            months.append(self.predict(images[..., 0], pack.male[batch], views))
        return np.concatenate(months, axis=1)

    def _check_size(self, size_px: int, whose: str) -> None:
        if size_px != self.size_px:
            raise ContractError(
                f"the model takes images of {self.size_px} px, {whose} {size_px} px. Run: boneagectl data prepare"
                f" --size {self.size_px}"
            )
