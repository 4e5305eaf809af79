"""The TensorBoard event file of a run. There is one per run; writing it again replaces it.

TensorFlow's own summary writer would add a file each time, and stamp the present time on epochs of last week.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from boneage_trainer.contract import RESEARCH_ONLY, ContractError
from boneage_trainer.export.run_record import RunRecord

_VERSION = "brain.Event:2"


def write_events(record: RunRecord, logs: Path) -> Path:
    """Writes `record` below the log folder `logs` and returns the file.

    Raises:
        ContractError: the run's name would lead out of `logs`.
    """
    folder = logs / record.name
    if folder.resolve().parent != logs.resolve():
        raise ContractError(f"invalid run name {record.name!r}: it must name a folder in {logs}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{int(record.started_s)}.boneagectl"
    rows = "\n".join(f"| {key} | {value} |" for key, value in {**record.settings, **record.facts}.items())
    events = [
        tf.compat.v1.Event(wall_time=record.started_s, file_version=_VERSION),
        _event(record.started_s, 0, _text("about", f"**{RESEARCH_ONLY}**")),
        _event(record.started_s, 0, _text("settings", f"| setting | value |\n|---|---|\n{rows}")),
    ]
    for metric in record.metrics:
        scalar = tf.compat.v1.Summary.Value(tag=metric.name, simple_value=metric.value)
        events.append(_event(metric.time_s, metric.epoch, scalar))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for event in events:
                writer.write(event.SerializeToString())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _event(time_s: float, step: int, value: Any) -> Any:
    return tf.compat.v1.Event(wall_time=time_s, step=step, summary=tf.compat.v1.Summary(value=[value]))


def _text(tag: str, text: str) -> Any:
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="text")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
    return tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tf.make_tensor_proto(text.encode()))
