"""TensorBoard's event file of a run, one for each run: written again, it replaces itself.

TensorFlow's own summary writer would add a file each time and stamp the present time on epochs of last week.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from boneage_trainer.contract import RESEARCH_ONLY, ContractError
from boneage_trainer.export.run_record import Figure, Record

_VERSION = "brain.Event:2"


def write(record: Record, logs: Path) -> Path:
    """Writes `record` below the log folder `logs` and returns the file.

    Raises:
        ContractError: the run's name would lead out of `logs`.
    """
    folder = logs / record.name
    if folder.resolve().parent != logs.resolve():
        raise ContractError(f"a run called {record.name!r} has no folder of its own in {logs}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{int(record.began_s)}.boneagectl"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for event in _events(record):
                writer.write(event.SerializeToString())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _events(record: Record) -> Iterator[Any]:
    yield tf.compat.v1.Event(wall_time=record.began_s, file_version=_VERSION)
    yield _event(record.began_s, 0, _text("about", f"**{RESEARCH_ONLY}**"))
    rows = "\n".join(f"| {key} | {value} |" for key, value in {**record.settings, **record.facts}.items())
    yield _event(record.began_s, 0, _text("settings", f"| setting | value |\n|---|---|\n{rows}"))
    for figure in record.figures:
        yield _event(figure.time_s, figure.epoch, _scalar(figure))


def _event(time_s: float, step: int, value: Any) -> Any:
    return tf.compat.v1.Event(wall_time=time_s, step=step, summary=tf.compat.v1.Summary(value=[value]))


def _scalar(figure: Figure) -> Any:
    return tf.compat.v1.Summary.Value(tag=figure.name, simple_value=figure.value)


def _text(tag: str, text: str) -> Any:
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="text")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
    return tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tf.make_tensor_proto(text.encode()))
