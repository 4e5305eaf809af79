"""A run in MLflow's store, read back by MLflow's own client."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder, read_metrics
from trainer.conftest import Bench, log_run

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("mlflow", "sqlalchemy", "alembic"))), reason="mlflow, sqlalchemy or alembic is missing"
)

READ = """
import json, os, sys
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
import mlflow
client = mlflow.MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("boneagectl")
runs = []
for run in client.search_runs([experiment.experiment_id]):
    history = {name: [[point.step, point.timestamp, point.value]
                      for point in client.get_metric_history(run.info.run_id, name)]
               for name in run.data.metrics}
    files = [item.path for item in client.list_artifacts(run.info.run_id)]
    runs.append({"id": run.info.run_id, "name": run.info.run_name, "status": run.info.status, "files": sorted(files),
                 "params": run.data.params, "tags": run.data.tags, "history": history})
print(json.dumps(runs))
"""
LOAD = """
import json, os, sys
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
import mlflow.keras, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.keras.load_model(f"runs:/{sys.argv[2]}/model")
images = np.load(sys.argv[3])[..., None]
print(json.dumps(model.predict([images, np.ones((len(images), 1))], verbose=0)[:, 0].tolist()))
"""


def read_back(store: str) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", READ, store], capture_output=True, text=True, check=True)
    runs: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return runs


@pytest.fixture(scope="module")
def run(finished: Bench) -> RunFolder:
    return finished.out("whole")


@pytest.fixture(scope="module")
def store(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that has the run."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('with space') / 'mlflow.db'}"
    done = log_run(run, "--to", "mlflow", uri)
    assert done.returncode == 0, done.stderr
    assert RESEARCH_ONLY in done.stderr
    assert json.loads(done.stdout)["updated"] is False
    return uri


def test_mlflow_s_own_client_reads_the_run(store: str, run: RunFolder) -> None:
    (stored,) = read_back(store)
    assert (stored["name"], stored["status"]) == ("whole", "FINISHED")
    assert stored["tags"]["boneagectl.run_id"] == "whole"
    assert stored["tags"]["research_only"] == RESEARCH_ONLY
    assert (stored["params"]["width"], stored["params"]["batch_size"]) == ("4", "8")
    lines = read_metrics(run.metrics)
    assert stored["history"]["val_mae_months"] == [
        [line["epoch"], round(1000 * line["time_s"]), line["val_mae_months"]] for line in lines
    ]
    evaluation = json.loads(run.evaluation.read_text())
    assert stored["history"]["test_mae_months"][0][2] == evaluation["sets"]["test"]["mae_months"]


def test_files_come_along_but_no_checkpoint_and_no_radiographs(store: str) -> None:
    (stored,) = read_back(store)
    assert {"model", "evaluation.json", "model_card.md", "metrics.jsonl", "environment.json"} <= set(stored["files"])
    assert not {"gradcam.png", "checkpoint", "model.keras"} & set(stored["files"])


def test_mlflow_loads_the_model(store: str, run: RunFolder, finished: Bench) -> None:
    command = [sys.executable, "-c", LOAD, store, read_back(store)[0]["id"], str(finished.pack / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    from_mlflow = json.loads(done.stdout.splitlines()[-1])
    index = (finished.pack / "index.csv").read_text().splitlines()[1:]
    rows = {line.split(",")[0]: at for at, line in enumerate(index)}
    for line in run.predictions.read_text().splitlines()[1:]:
        id_, _, male, _, months = line.split(",")
        if male == "True":
            assert from_mlflow[rows[id_]] == pytest.approx(float(months), abs=0.01)


def test_the_same_run_again_is_updated_not_doubled(store: str, run: RunFolder) -> None:
    before = read_back(store)
    done = log_run(run, "--to", "mlflow", store, "--with-images")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"] == 0
    assert json.loads(done.stdout)["updated"] is True
    (after,) = read_back(store)
    assert after["history"] == before[0]["history"]
    assert "gradcam.png" in after["files"], "asked for this time"


def test_another_run_of_that_name_is_refused(store: str, run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(shutil.copytree(run.root, tmp_path / "other"))
    other.metrics.write_text(other.metrics.read_text().replace('"val_mae_months": ', '"val_mae_months": 1'))
    done = log_run(other, "--to", "mlflow", store)
    assert done.returncode == 2
    assert "another run of this name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("uri", "message"), [("file:runs", "must be sqlite:///"), ("junk", "file is not a database")])
def test_an_unusable_store_is_an_error(uri: str, message: str, run: RunFolder, tmp_path: Path) -> None:
    if uri == "junk":
        (tmp_path / "junk.db").write_text("junk" * 100)
        uri = f"sqlite:///{tmp_path / 'junk.db'}"
    done = log_run(run, "--to", "mlflow", uri)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
