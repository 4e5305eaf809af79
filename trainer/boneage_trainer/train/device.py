"""The devices a training runs on: every GPU of this machine, several machines, or the CPU."""

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
    """Where a step runs and how: dtype policy, XLA, and in how many parts a batch is taken.

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

    def with_(self, **changes: Any) -> Device:
        return replace(self, **changes)

    def scope(self) -> Any:
        """Variables are made within it."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    # ------------------------------------------------------------------------------------- steps
    def shared(self, arrays: Any) -> Any:
        """Cuts the (nested) `arrays` of a whole batch along their first axis, a piece for each replica."""
        if not self.strategy:
            return tf.nest.map_structure(tf.convert_to_tensor, arrays)

        def piece(context: Any) -> Any:
            at, of = context.replica_id_in_sync_group, self.replicas
            return tf.nest.map_structure(lambda a: tf.convert_to_tensor(a[len(a) * at // of : len(a) * (at + 1) // of]),
                                         arrays)  # fmt: skip

        return self.strategy.experimental_distribute_values_from_function(piece)

    def everywhere(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Runs `work` on every replica; returns the means of what it returns."""
        if not self.strategy:
            return work(*arguments)
        answers = self.strategy.run(work, args=arguments)
        return tf.nest.map_structure(lambda one: self.strategy.reduce("MEAN", one, axis=None), answers)

    def any(self, mine: bool) -> bool:
        """Whether it is so on any machine; all must ask at the same point."""
        return self.mean(float(mine)) > 0

    def mean(self, mine: float) -> float:
        """The mean of a value over all machines; all must ask at the same point."""
        if self.workers == 1:
            return mine
        values = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(mine))
        return float(self.strategy.reduce("MEAN", values, axis=None))

    def check_batch(self, batch_size: int) -> None:
        """Raises ContractError where a batch cannot be shared evenly."""
        if batch_size % (self.replicas * self.accumulate):
            fitting = max(self.replicas, batch_size // self.replicas * self.replicas)
            raise ContractError(
                f"batch_size {batch_size} cannot be shared by {self.replicas} devices; set train.batch_size={fitting}"
            )

    def with_smaller_batches(self, batch_size: int) -> Device | None:
        """This device with each batch taken in twice as many parts, or None where they cannot be smaller."""
        parts = self.accumulate * 2
        return None if batch_size % (self.replicas * parts) else self.with_(accumulate=parts)


def find_device() -> Device:
    """Every device there is: the machines TF_CONFIG names, all GPUs, else the CPU.

    Raises:
        ContractError: no GPU can be used, where the surroundings say that one must be.
    """
    if os.environ.get(NEED_GPU) == "1" and not tf.config.list_physical_devices("GPU"):
        raise ContractError(
            f"TensorFlow {tf.__version__} sees no GPU and {NEED_GPU}=1 forbids to train on the CPU: this TensorFlow "
            "is built for CPUs, or does not fit the driver (nvidia-smi names it); take another image or machine"
        )
    if _workers() > 1:
        return _over(tf.distribute.MultiWorkerMirroredStrategy())
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return Device()
    return _over(tf.distribute.MirroredStrategy([device.name for device in devices]))


def _over(strategy: Any) -> Device:
    replicas = strategy.num_replicas_in_sync
    return Device(strategy, replicas, replicas // _workers())


def _workers() -> int:
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return max(1, len(cluster.get("chief", [])) + len(cluster.get("worker", [])))


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, tf.errors.ResourceExhaustedError) or "RESOURCE_EXHAUSTED" in str(error)[:2000]
