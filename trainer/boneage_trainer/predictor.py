"""A model's answers for batches of images or features, on all devices of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from boneage_trainer.device import Device


def of_model(model: Any, inputs: Sequence[Any], training: bool) -> Any:
    """The answer of `model` to a sequence of inputs, which may have one member."""
    return model(list(inputs) if len(inputs) > 1 else inputs[0], training=training)


class Predictor:
    """Answers batch by batch; shorter ones are filled up, so that the model is traced for one size only."""

    def __init__(self, model: Any, device: Device) -> None:
        self._device, self._size = device, 0

        @tf.function(jit_compile=device.jit and not device.strategy)  # type: ignore[untyped-decorator]
        def one(inputs: Any) -> Any:
            return of_model(model, inputs, training=False)

        self._run = tf.function(lambda given: device.strategy.run(one, args=(given,))) if device.strategy else one

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """The answers (b, ...) to `inputs`, each (b, ...), as an array."""
        count, local = len(inputs[0]), self._device.local
        self._size = max(self._size, -(-count // local) * local)
        full = tuple(_filled(one, self._size) for one in inputs)
        if not self._device.strategy:
            return np.asarray(self._run(tuple(tf.convert_to_tensor(one) for one in full)))[:count]
        answers = self._device.strategy.experimental_local_results(self._run(self._pieces(full)))
        return np.concatenate([np.asarray(answer) for answer in answers])[:count]

    def _pieces(self, full: tuple[Any, ...]) -> Any:
        """Every machine answers for the whole batch, and cuts it over its own devices."""
        size = self._size // self._device.local

        def piece(context: Any) -> Any:
            at = context.replica_id_in_sync_group % self._device.local * size
            return tuple(tf.convert_to_tensor(one[at : at + size]) for one in full)

        return self._device.strategy.experimental_distribute_values_from_function(piece)


def _filled(array: Any, size: int) -> Any:
    """`array` with its last member repeated until there are `size`."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
