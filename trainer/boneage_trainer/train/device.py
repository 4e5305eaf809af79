"""The devices a run trains on: every GPU of this machine, several machines, or the CPU."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from boneage_trainer.errors import ContractError
from boneage_trainer.platforms.detect import NEED_GPU


@dataclass(frozen=True, slots=True)
class Device:
    """Where a step runs and how: dtype policy, XLA, and in how many parts a batch is computed.

    `replicas` counts devices over all machines, `local` those of this one; `strategy` is None for one.
    """

    strategy: Any = None
    replicas: int = 1
    local: int = 1
    precision: str = "float32"
    jit: bool = False
    accumulate: int = 1

    @property
    def workers(self) -> int:
        return self.replicas // self.local

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the bits of a result, beside the device itself."""
        return {"precision": self.precision, "jit": self.jit, "accumulate": self.accumulate}

    def scope(self) -> Any:
        """The context in which variables are created."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def distribute(self, arrays: Any) -> Any:
        """Cuts the (nested) `arrays` of a whole batch along their first axis, a piece for each replica."""
        if not self.strategy:
            return tf.nest.map_structure(tf.convert_to_tensor, arrays)

        def piece(context: Any) -> Any:
            index, count = context.replica_id_in_sync_group, self.replicas

            def cut(array: Any) -> Any:
                return tf.convert_to_tensor(array[len(array) * index // count : len(array) * (index + 1) // count])

            return tf.nest.map_structure(cut, arrays)

        return self.strategy.experimental_distribute_values_from_function(piece)

    def run_on_replicas(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Runs `work` on every replica; returns the means of what it returns."""
        if not self.strategy:
            return work(*arguments)
        results = self.strategy.run(work, args=arguments)
        return tf.nest.map_structure(lambda result: self.strategy.reduce("MEAN", result, axis=None), results)

    def is_true_anywhere(self, condition: bool) -> bool:
        """Whether `condition` holds on any machine; all must call this at the same point."""
        return self.mean_over_machines(float(condition)) > 0

    def mean_over_machines(self, value: float) -> float:
        """The mean of `value` over all machines; all must call this at the same point."""
        if self.workers == 1:
            return value
        values = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(value))
        return float(self.strategy.reduce("MEAN", values, axis=None))

    def check_batch(self, batch_size: int) -> None:
        """Raises ContractError where a batch cannot be shared evenly."""
        if batch_size % (self.replicas * self.accumulate):
            fitting = max(self.replicas, batch_size // self.replicas * self.replicas)
            raise ContractError(
                f"batch_size {batch_size} cannot be shared by {self.replicas} devices; set train.batch_size={fitting}"
            )

    def with_smaller_batches(self, batch_size: int) -> Device | None:
        """This device with each batch in twice as many parts, or None where the parts cannot be smaller."""
        parts = self.accumulate * 2
        return None if batch_size % (self.replicas * parts) else replace(self, accumulate=parts)


def find_device() -> Device:
    """Every device there is: the machines in TF_CONFIG, all GPUs, else the CPU.

    Raises:
        ContractError: no GPU can be used, where BONEAGE_NEED_GPU=1 requires one.
    """
    if os.environ.get(NEED_GPU) == "1" and not tf.config.list_physical_devices("GPU"):
        raise ContractError(
            f"TensorFlow {tf.__version__} sees no GPU and {NEED_GPU}=1 forbids training on the CPU: this TensorFlow "
            "is built for CPUs or does not fit the driver (nvidia-smi shows it); use another image or machine"
        )
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    workers = max(1, len(cluster.get("chief", [])) + len(cluster.get("worker", [])))
    if workers > 1:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) == 1:
            return Device()
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    replicas = strategy.num_replicas_in_sync
    return Device(strategy, replicas, replicas // workers)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, tf.errors.ResourceExhaustedError) or "RESOURCE_EXHAUSTED" in str(error)[:2000]
