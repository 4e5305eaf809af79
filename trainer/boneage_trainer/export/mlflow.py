"""A run in an MLflow store in SQLite: settings, figures by epoch, files, the model; once, however often sent."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder
from boneage_trainer.export.run_record import Figure, Record
from boneage_trainer.inference import model

# Before MLflow is imported: it reports its use over the network otherwise.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

EXPERIMENT = "boneagectl"
RUN_ID_TAG = "boneagectl.run_id"
_SCHEME = "sqlite:///"
_AT_ONCE = 500
_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy")


def write(record: Record, run: RunFolder, uri: str, with_images: bool) -> dict[str, Any]:
    """Writes `record` and the files of `run` into the store at `uri`, ``sqlite:///PATH``.

    Files go into a folder beside the database. Checkpoints stay: only a next leg needs them. So do pictures of
    patients, unless `with_images`.

    Returns:
        store, artifacts (the folder), mlflow_run_id, updated (whether the run was there), figures (how many are new).

    Raises:
        ContractError: another kind of store, one that MLflow cannot open, or a run of this name that has other
            settings or figures.
    """
    database = _database(uri)
    try:
        return _written(record, run, database, with_images)
    except (MlflowException, SQLAlchemyError) as error:
        raise ContractError(f"MLflow's store {database}: {' '.join(str(error).split())[:300]}") from None


def _written(record: Record, run: RunFolder, database: Path, with_images: bool) -> dict[str, Any]:
    database.parent.mkdir(parents=True, exist_ok=True)
    store = f"{_SCHEME}{database}"
    client = mlflow.MlflowClient(store)
    experiment_id = _experiment(client, database)
    known = _known(client, experiment_id, record.name)
    found = known or client.create_run(
        experiment_id, start_time=_ms(record.began_s), run_name=record.name, tags={RUN_ID_TAG: record.name}
    )
    run_id = found.info.run_id
    _check_settings(found, record)
    new = list(_new(client, run_id, record.figures))
    tags = {**record.facts, "research_only": RESEARCH_ONLY, "mlflow.note.content": f"**{RESEARCH_ONLY}**"}
    client.log_batch(run_id, params=[Param(key, value) for key, value in record.settings.items()],
                     tags=[RunTag(key, value) for key, value in tags.items()])  # fmt: skip
    for at in range(0, len(new), _AT_ONCE):
        client.log_batch(run_id, metrics=new[at : at + _AT_ONCE])
    _send_files(client, run_id, run, with_images)
    client.set_terminated(run_id, record.status, _ms(record.ended_s))
    return {
        "store": store, "artifacts": found.info.artifact_uri.removeprefix("file://"), "mlflow_run_id": run_id,
        "updated": known is not None, "figures": len(new),
    }  # fmt: skip


def _database(uri: str) -> Path:
    if not uri.startswith(_SCHEME) or not uri.removeprefix(_SCHEME):
        raise ContractError(f"an MLflow store is given as {_SCHEME}PATH/mlflow.db, not {uri!r}")
    return Path(uri.removeprefix(_SCHEME)).absolute()


def _experiment(client: Any, database: Path) -> str:
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, (database.parent / f"{database.stem}-artifacts").as_uri()))


def _known(client: Any, experiment_id: str, name: str) -> Any:
    quoted = name.replace("'", "''")
    found = client.search_runs([experiment_id], f"tags.`{RUN_ID_TAG}` = '{quoted}'", max_results=1)
    return found[0] if found else None


def _check_settings(found: Any, record: Record) -> None:
    """MLflow never changes a setting; a run that has others is another training of the same name."""
    other = {key: value for key, value in found.data.params.items() if record.settings.get(key, value) != value}
    if other:
        raise ContractError(
            f"the store has a run {record.name} with other settings ({', '.join(sorted(other))}): it was another"
            " training; delete or rename it there, or use another store"
        )


def _new(client: Any, run_id: str, figures: Sequence[Figure]) -> Iterator[Metric]:
    """What the store does not have yet, by name and epoch."""
    there = {
        (name, one.step): one.value
        for name in {figure.name for figure in figures}
        for one in client.get_metric_history(run_id, name)
    }
    for figure in figures:
        known = there.get((figure.name, figure.epoch))
        if known is None:
            yield Metric(figure.name, figure.value, _ms(figure.time_s), figure.epoch)
        elif known != figure.value:
            raise ContractError(
                f"the store has {figure.name} {known} in epoch {figure.epoch}, the run {figure.value}: it was another"
                " training of this name; delete or rename it there, or use another store"
            )


def _ms(time_s: float) -> int:
    return round(1000 * time_s)


# -------------------------------------------------------------------------------------- the files
def _send_files(client: Any, run_id: str, run: RunFolder, with_images: bool) -> None:
    left_out = {run.last, run.best, run.model, *(() if with_images else (run.gradcam,))}
    for path in (*run.manifest_files(), run.log):
        if path not in left_out and path.exists():
            client.log_artifact(run_id, str(path))
    if run.model.exists():
        with tempfile.TemporaryDirectory() as place:
            _save_model(run, Path(place) / "model")
            client.log_artifacts(run_id, str(Path(place) / "model"), "model")


def _save_model(run: RunFolder, folder: Path) -> None:
    """As ``mlflow.keras`` loads it; the needs are named here, since MLflow would start a process to guess them."""
    import mlflow.keras  # takes TensorFlow's seconds, which a run that is refused need not wait for

    mlflow.keras.save_model(
        model.load(run.model), str(folder), pip_requirements=list(_needs()), metadata={"research_only": RESEARCH_ONLY}
    )


def _needs() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name}=={importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
