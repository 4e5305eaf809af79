"""A run in an MLflow store in SQLite: settings, metrics by epoch, files and the model; logging it again updates it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder
from boneage_trainer.export.run_record import MetricValue, RunRecord

# Before MLflow is imported: it reports its use over the network otherwise.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

EXPERIMENT = "boneagectl"
RUN_ID_TAG = "boneagectl.run_id"
_SCHEME = "sqlite:///"
_BATCH = 500
_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy")


def write_run(record: RunRecord, run: RunFolder, uri: str, with_images: bool) -> dict[str, Any]:
    """Writes `record` and the files of `run` into the store at `uri`, ``sqlite:///PATH``.

    Files go into a folder beside the database. Checkpoints are left out, since only a next leg needs them, and so are
    images of patients unless `with_images`.

    Returns:
        store, artifacts (the folder), mlflow_run_id, updated (whether the run existed), figures (number of new ones).

    Raises:
        ContractError: not a SQLite URI, a store that MLflow cannot open, or it has a run of this name with other
            settings or metrics.
    """
    path = uri.removeprefix(_SCHEME)
    if path in ("", uri):
        raise ContractError(f"an MLflow store must be {_SCHEME}PATH/mlflow.db, not {uri!r}")
    database = Path(path).absolute()
    try:
        return _write_run(record, run, database, with_images)
    except (MlflowException, SQLAlchemyError) as error:
        raise ContractError(f"MLflow store {database}: {' '.join(str(error).split())[:300]}") from None


def _write_run(record: RunRecord, run: RunFolder, database: Path, with_images: bool) -> dict[str, Any]:
    database.parent.mkdir(parents=True, exist_ok=True)
    store = f"{_SCHEME}{database}"
    client = mlflow.MlflowClient(store)
    if experiment := client.get_experiment_by_name(EXPERIMENT):
        experiment_id = experiment.experiment_id
    else:
        artifacts = database.parent / f"{database.stem}-artifacts"
        experiment_id = client.create_experiment(EXPERIMENT, artifacts.as_uri())
    quoted = record.name.replace("'", "''")
    existing = client.search_runs([experiment_id], f"tags.`{RUN_ID_TAG}` = '{quoted}'", max_results=1)
    if existing:
        stored = existing[0]
    else:
        name_tag, start_ms = {RUN_ID_TAG: record.name}, _ms(record.started_s)
        stored = client.create_run(experiment_id, start_time=start_ms, run_name=record.name, tags=name_tag)
    run_id = stored.info.run_id
    # MLflow never changes a setting; a run with other settings is another run of the same name.
    if other := {key for key, value in stored.data.params.items() if record.settings.get(key, value) != value}:
        raise ContractError(
            f"the store has another run named {record.name}, with other settings ({', '.join(sorted(other))});"
            " delete or rename it there, or use another store"
        )
    new = list(_new_metrics(client, run_id, record.metrics))
    tags = {**record.facts, "research_only": RESEARCH_ONLY, "mlflow.note.content": f"**{RESEARCH_ONLY}**"}
    client.log_batch(run_id, params=[Param(key, value) for key, value in record.settings.items()],
                     tags=[RunTag(key, value) for key, value in tags.items()])  # fmt: skip
    for start in range(0, len(new), _BATCH):
        client.log_batch(run_id, metrics=new[start : start + _BATCH])
    _log_files(client, run_id, run, with_images)
    client.set_terminated(run_id, record.status, _ms(record.ended_s))
    return {
        "store": store, "artifacts": stored.info.artifact_uri.removeprefix("file://"), "mlflow_run_id": run_id,
        "updated": bool(existing), "figures": len(new),
    }  # fmt: skip


def _new_metrics(client: Any, run_id: str, metrics: Sequence[MetricValue]) -> Iterator[Metric]:
    """What the store does not have yet, by name and epoch."""
    stored = {
        (name, point.step): point.value
        for name in {metric.name for metric in metrics}
        for point in client.get_metric_history(run_id, name)
    }
    for metric in metrics:
        value = stored.get((metric.name, metric.epoch))
        if value is None:
            yield Metric(metric.name, metric.value, _ms(metric.time_s), metric.epoch)
        elif value != metric.value:
            raise ContractError(
                f"the store has another run of this name: {metric.name} in epoch {metric.epoch} is {value} there and"
                f" {metric.value} here; delete or rename it there, or use another store"
            )


def _ms(time_s: float) -> int:
    return round(1000 * time_s)


def _log_files(client: Any, run_id: str, run: RunFolder, with_images: bool) -> None:
    left_out = {run.last, run.best, run.model, *(() if with_images else (run.gradcam,))}
    for path in (*run.manifest_files(), run.log):
        if path not in left_out and path.exists():
            client.log_artifact(run_id, str(path))
    if not run.model.exists():
        return
    import mlflow.keras  # loads TensorFlow, which takes seconds: not for a run that is refused

    from boneage_trainer.inference.model import load_model
    from boneage_trainer.train.environment import installed_versions

    # Given, so that MLflow need not guess.
    requirements = [f"{name}=={version}" for name, version in installed_versions(_PACKAGES).items()]
    with tempfile.TemporaryDirectory() as folder:
        saved, metadata = str(Path(folder) / "model"), {"research_only": RESEARCH_ONLY}
        mlflow.keras.save_model(load_model(run.model), saved, pip_requirements=requirements, metadata=metadata)
        client.log_artifacts(run_id, saved, "model")
