"""The names, values and files that orchestrator and trainer share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import (
    ContractError,
    Job,
    PackFolder,
    RunFolder,
    TrainConfig,
    parse_sentinel,
    parse_state,
    read_metrics,
    sentinel_line,
    sha256_of,
    state_line,
    write_atomic,
    write_json,
    write_manifest,
)
from support import DATA, environment, make_pack


# -------------------------------------------------------------------------------------- the config
def test_given_values_override_those_of_the_preset() -> None:
    config = TrainConfig.from_mapping({"preset": "smoke", "width": 16})
    assert (config.epochs, config.width, config.augment) == (2, 16, "none")
    assert TrainConfig.from_mapping({}) == TrainConfig()
    assert TrainConfig.from_mapping({"learning_rate": 1}).learning_rate == 1.0


def test_a_shortened_config_keeps_its_network_and_phases() -> None:
    fast = TrainConfig.from_mapping({"preset": "fast", "weights": "own.h5", "weights_md5": "1" * 32})
    short = fast.shortened(2, seed=7)
    assert (short.epochs, short.backbone_epochs, short.batch_size, short.weights) == (2, (1, 1), 8, "none")
    assert (short.backbone, short.preset, short.seed, short.dropout) == (fast.backbone, "fast", 7, fast.dropout)
    assert TrainConfig(batch_size=2, test_views=1).shortened(1) == TrainConfig(batch_size=2, test_views=1, epochs=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, r"unknown training setting 'epoch'\. Did you mean 'epochs'\?"),
        ({"preset": "tyny"}, r"unknown preset 'tyny'\. Did you mean 'tiny'\?"),
        ({"preset": ["tiny"]}, "preset"),
        ({"preset": None}, "preset"),
        ({"augment": "lite"}, r"unknown augment 'lite'"),
        ({"epochs": True}, "epochs must be int, not True"),
        ({"epochs": "x"}, "epochs must be int, not 'x'"),
        ({"epochs": 2.5}, "epochs must be int, not 2.5"),
        ({"epochs": 0}, r"epochs must lie in 1\.\.10000, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must lie in"),
        ({"learning_rate": True}, "learning_rate must be float"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"seed": 2**32}, "seed must lie in"),
        ({"use_sex": 1}, "use_sex must be bool, not 1"),
        ({"split": 5}, "split must be str"),
    ],
)
def test_invalid_configs_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        TrainConfig.from_mapping(given)


# ----------------------------------------------------------------------------------------- the job
def test_a_job_survives_a_round_trip_through_json() -> None:
    job = Job(train=TrainConfig(epochs=7), data=dict(DATA), provenance={"git_commit": "ü"})
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "must be a JSON object, not list"), ('{"schema": 99}', "schema 99"),
     ('{"schema": 1}', "lacks data, provenance, train"), ("{}", "schema None")],
)  # fmt: skip
def test_invalid_jobs_are_refused(text: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Job.from_json(text)


# ---------------------------------------------------------------------------------------- the pack
def test_a_pack_card_is_read_or_refused(tmp_path: Path) -> None:
    assert PackFolder(make_pack(tmp_path / "pack")).job_data() == DATA
    with pytest.raises(ContractError, match="is not a pack"):
        PackFolder(tmp_path).read_card()
    with pytest.raises(ContractError, match="schema 2"):
        PackFolder(make_pack(tmp_path / "newer", schema=2)).read_card()


# ------------------------------------------------------------------------------------- safe files
def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    script = """
import resource, sys
from pathlib import Path
from boneage_trainer.contract import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=environment(), capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "File too large\n", done.stderr
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_with_nan_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"loss": value})
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_lists_existing_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_atomic(folder.last, b"weights")
    write_atomic(folder.metrics, "{}\n")
    write_atomic(folder.log, "not listed")
    write_manifest(folder)
    manifest = json.loads(folder.manifest.read_text())
    assert sorted(manifest["files"]) == ["checkpoint/last.npz", "metrics.jsonl"]
    assert manifest["files"]["checkpoint/last.npz"] == {"bytes": 7, "sha256": sha256_of(folder.last)}


# --------------------------------------------------------------------------------------- signals
def test_a_metrics_line_is_parsed_from_a_log() -> None:
    metrics = {"epoch": 3, "loss": 0.25, "leg": "Größe-01"}
    line = sentinel_line(metrics)
    assert "\n" not in line
    assert parse_sentinel(line) == metrics


@pytest.mark.parametrize("line", ["", "epoch 3", "BONEAGE ", "BONEAGE {", "BONEAGE [1]", " BONEAGE {}", "BONEAGE{}"])
def test_other_log_lines_are_ignored(line: str) -> None:
    assert parse_sentinel(line) is None


def test_state_lines_and_metrics_lines_are_distinct() -> None:
    values = {"state": "paused", "reason": "time limit", "epoch": 3}
    assert parse_state(state_line(values) + "\n") == values
    assert parse_sentinel(state_line(values)) is None
    assert parse_state(sentinel_line({"epoch": 3})) is None
    assert parse_state("BONEAGE-STATE {") is None


def test_a_metrics_line_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        sentinel_line({"loss": float("nan")})


def test_metrics_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"epoch": 1}\n\n{"epoch": 2}\n')
    assert [line["epoch"] for line in read_metrics(path)] == [1, 2]
    path.write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(ContractError, match=r"metrics\.jsonl line 2 is not JSON"):
        read_metrics(path)
