"""What a training will take where: from what was measured, refined by each run, roughly from a table, or not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boneage_trainer.contract import RunFolder, TrainConfig, write_atomic, write_json
from boneagectl import throughput
from boneagectl.ledger.store import opened
from emulators.kaggle import Kaggle
from support import Cli

SMALL_S, FULL_S = 0.001, 0.004
"""An image's time in an epoch of each kind."""
DATA = {"count": 1000, "image_size_px": 96, "fingerprint": "ab" * 32}


def leave_run(folder: Path, leg: str, epochs: int, off: float = 0.0) -> RunFolder:
    """What a leg of `tiny` leaves whose epochs take as said, alternately `off` more and less; each first compiles."""
    run, names = RunFolder(folder), list(throughput.epoch_kinds(TrainConfig.from_mapping({"epochs": epochs})))
    elapsed_s, lines = 5.0, []
    for at, name in enumerate(names):
        first = name != (names[at - 1] if at else "")
        each_s = (SMALL_S if name.startswith("small") else FULL_S) * (1 + (off if at % 2 else -off))
        epoch_s = 640 * each_s + (3.0 if first else 0.0)
        elapsed_s += epoch_s
        each = {"load_ms_per_image": 0.5, "compute_ms_per_image": 3.0, "compile_s": 3.0 if first else 0.0}
        lines.append({"epoch": at + 1, "leg": leg, "images": 640, "epoch_s": epoch_s, "elapsed_s": elapsed_s, **each})
    write_atomic(run.metrics, "".join(json.dumps(line) + "\n" for line in lines))
    write_json(run.environment, {"gpus": [], "cores": 2, "cpu": "a processor", "times": {"evaluate_s": 7.0}})
    return run


def config(epochs: int) -> dict[str, object]:
    return {"epochs": epochs}


def test_an_estimate_is_the_sum_of_its_kinds_of_epochs(tmp_path: Path) -> None:
    found = throughput.measure_leg("local", "a-01", config(8), DATA, leave_run(tmp_path, "a-01", 8))
    assert found
    assert {kind: len(values) for kind, values in found.samples.items()} == {"small all": 3, "full all": 3}
    told = throughput.estimate([found], TrainConfig.from_mapping({"epochs": 80}), DATA)
    assert told
    expected_s = 5.0 + 2 * 3.0 + 7.0 + 640 * (40 * SMALL_S + 40 * FULL_S)
    assert told.seconds == pytest.approx(expected_s)
    assert (told.low_s, told.high_s) == pytest.approx((expected_s, expected_s))
    assert told.basis.startswith("6 epochs measured on 2 cores, a processor")


def test_what_varies_widens_the_range_and_more_runs_narrow_it(tmp_path: Path) -> None:
    one = throughput.measure_leg("local", "a-01", config(8), DATA, leave_run(tmp_path / "one", "a-01", 8, off=0.2))
    more = throughput.measure_leg("local", "b-01", config(40), DATA, leave_run(tmp_path / "more", "b-01", 40, off=0.2))
    assert one
    assert more
    wide = throughput.estimate([one], TrainConfig.from_mapping({"epochs": 80}), DATA)
    narrow = throughput.estimate([one, more], TrainConfig.from_mapping({"epochs": 80}), DATA)
    assert wide
    assert narrow
    assert 0 < narrow.high_s - narrow.low_s < 0.5 * (wide.high_s - wide.low_s)
    assert wide.low_s < wide.seconds < wide.high_s


def test_other_work_was_not_measured(tmp_path: Path) -> None:
    found = throughput.measure_leg("local", "a-01", config(8), DATA, leave_run(tmp_path, "a-01", 8))
    assert found
    assert throughput.estimate([found], TrainConfig.from_mapping({"width": 8}), DATA) is None
    assert throughput.estimate([found], TrainConfig.from_mapping({}), {**DATA, "image_size_px": 128}) is None
    same = {"seed": 3, "learning_rate": 1e-4, "early_stopping_patience": 3}
    assert throughput.estimate([found], TrainConfig.from_mapping(same), DATA)


def test_only_a_leg_s_own_epochs_count(tmp_path: Path) -> None:
    run = leave_run(tmp_path, "a-01", 8)
    assert throughput.measure_leg("local", "a-02", config(8), DATA, run) is None


def test_a_rough_figure_says_so_and_grows_with_the_work() -> None:
    best = TrainConfig.from_mapping({"preset": "best"})
    one = throughput.estimate_from_table("T4", 1, best, {**DATA, "image_size_px": 384}, 60)
    two = throughput.estimate_from_table("T4", 2, best, {**DATA, "image_size_px": 384}, 60)
    assert one
    assert two
    assert one.is_rough
    assert one.seconds - 60 == pytest.approx(2 * (two.seconds - 60)), "computing decides, not feeding"
    assert one.low_s < one.seconds < one.high_s
    assert throughput.estimate_from_table("T4", 1, TrainConfig(), DATA, 60) is None, "tiny was never counted"
    assert throughput.estimate_from_table("", 0, best, DATA, 60) is None


# ------------------------------------------------------------------------------------------ commands
def choices(cli: Cli, *words: object) -> dict[str, dict[str, object]]:
    return {one["target"]: one for one in cli("plan", *words, "--json").json["choices"]}


def test_plan_knows_nothing_until_something_was_measured(project: Path, cli: Cli, home: Path) -> None:
    said = choices(cli)
    assert said["local"]["time_s"] is None
    assert "calibrate --target local" in str(said["local"]["basis"])
    assert not home.exists(), "asking changes nothing"
    assert "local: not benchmarked" in cli("submit", "--target", "auto", code=5).err


def test_a_collected_run_tells_and_auto_takes_the_recommended(project: Path, cli: Cli, home: Path) -> None:
    words = ("--set", "train.epochs=8")
    cli("submit", "--name", "first-run", *words, "-q")
    cli("watch", "first-run", "--every", 0.1, "-q")
    folder = RunFolder(Path(cli("collect", "first-run").out.strip()))
    leave_run(folder.root, "first-run-01", 8)
    with opened(home / "ledger.db") as ledger:
        run = ledger.find_run("first-run")
        speed = throughput.measure_leg("local", "first-run-01", run.config, run.data, folder)
        assert speed
        ledger.record_speed("first-run-01", speed)
    said = choices(cli, *words)
    assert said["local"]["is_recommended"]
    assert said["local"]["sessions"] == 1
    assert "local" in cli("plan", *words).out
    cli("submit", "--target", "auto", "--name", "second-run", *words, "-q")
    assert cli("show", "second-run", "--json").json["legs"][0]["target"] == "local"


def test_what_is_forbidden_is_blocked_and_not_recommended(project: Path, cli: Cli) -> None:
    words = ("--preset", "fast", "--set", "targets.kaggle.username=alice", "--set", "data.image_size_px=256",
             "--set", "targets.kaggle.internet=true")  # fmt: skip
    cli("budget", "set", "kaggle", "--cap-hours", 0.01, "-q")
    said = choices(cli, *words)
    assert "account kaggle: this may take" in str(said["kaggle"]["blocks"])
    assert not said["kaggle"]["is_recommended"]
    assert said["azure"]["is_rough"]
    assert said["azure"]["is_recommended"], "what is left"
    assert float(str(said["azure"]["usd"])) > 0
    assert "azure" in cli("plan", *words, "--prefer", "fastest").out


def test_a_training_longer_than_a_session_has_several(project: Path, cli: Cli) -> None:
    card = json.loads((project / "pack" / "pack.json").read_text())
    (project / "pack" / "pack.json").write_text(json.dumps({**card, "count": 12_611}))
    words = ("--preset", "fast", "--time-limit", "30m", "--set", "train.epochs=10000",
             "--set", "targets.kaggle.internet=true")  # fmt: skip
    assert int(str(choices(cli, *words)["kaggle"]["sessions"])) > 1
    assert "QUOTA HOURS" in cli("plan", *words).out
    assert "unknown target 'moon'" in cli("plan", "--target", "moon", code=2).err
    assert "luck" in cli("plan", "--prefer", "luck", code=2).err


def test_a_calibration_is_a_short_run_and_prints_only_what_it_measured(project: Path, cli: Cli) -> None:
    said = cli("calibrate", "--json")
    run = cli("show", said.json["run_id"], "--json").json
    assert (run["state"], run["epochs"], run["legs"][0]["time_limit_s"]) == ("complete", 8, 3600)
    assert said.json["speeds"] == [], "the trainer of these tests measures nothing"
    assert "epoch" in said.err


def test_providers_are_asked_what_they_refuse_only_if_that_is_wished_for(
    project: Path, kaggle: Kaggle, cli: Cli
) -> None:
    words = ("--preset", "fast", "--set", "targets.kaggle.username=alice", "--set", "targets.kaggle.dataset=alice/gone",
             "--set", "data.image_size_px=256", "--set", "train.weights=none")  # fmt: skip
    assert choices(cli, *words)["kaggle"]["blocks"] == []
    assert kaggle.calls == []
    assert "data: " in str(choices(cli, *words, "--ask")["kaggle"]["blocks"])


def test_a_full_disk_blocks_every_target(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boneagectl.planner.MIN_FREE_BYTES", 10**18)
    words = ("--preset", "fast", "--set", "targets.kaggle.username=alice", "--set", "data.image_size_px=256")
    assert "disk: " in str(choices(cli, *words)["azure"]["blocks"])
