"""The error of `plan`: recorded runs are replayed, each predicted from the calibration that was made before it.

    python benchmarks/forecast.py            replays tests/recorded, in a second
    python benchmarks/forecast.py --record   runs and records them again on this machine, in a quarter of an hour

A recording is what two runs left, a calibration of eight epochs and the run itself: the times of each epoch, the
machine, and the duration of the whole leg by the ledger.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, entry, environment, show

from boneage_trainer.contract import RunFolder, TrainConfig, write_atomic, write_json
from boneagectl import throughput

RECORDED = ROOT / "tests" / "recorded"
AT_MOST_PERCENT = 15.0
_CALIBRATION, _RUN = "calibration", "training"
_KEPT = ("epoch", "leg", "images", "epoch_s", "elapsed_s", "compile_s", "load_ms_per_image", "compute_ms_per_image")
_WORKS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "tiny-96px": (600, 96, {"preset": "tiny", "epochs": 24}),
    "tiny-64px": (400, 64, {"preset": "tiny", "epochs": 40}),
    "tiny-128px": (300, 128, {"preset": "tiny", "epochs": 12}),
    "tiny-96px-deterministic": (400, 96, {"preset": "tiny", "epochs": 16, "deterministic": True}),
    "smoke-32px": (200, 32, {"preset": "smoke", "epochs": 40}),
    "paper-224px": (120, 224, {"preset": "paper", "weights": "none", "epochs": 30}),
}
"""By name: number of images, their size in pixels, settings of the run."""


# -------------------------------------------------------------------------------------- replaying
def off_percent(recording: dict[str, Any], place: Path) -> float:
    """How much longer the run took than predicted from its calibration; negative if it was shorter."""
    config, data = recording["config"], recording["data"]
    known = [_speed(recording[_CALIBRATION], config, data, place)]
    estimate = throughput.estimate(known, TrainConfig.from_mapping(config), data)
    assert estimate, "a calibration must measure each kind of epoch"
    return 100 * float(recording[_RUN]["took_s"] / estimate.seconds - 1)


def _speed(part: dict[str, Any], config: dict[str, Any], data: dict[str, Any], place: Path) -> Any:
    run = RunFolder(place)
    write_atomic(run.metrics, "".join(json.dumps(line) + "\n" for line in part["metrics"]))
    write_json(run.environment, part["environment"])
    asked = {**config, "epochs": len(part["metrics"])}
    speed = throughput.measure_leg("local", part["metrics"][0]["leg"], asked, data, run)
    assert speed, "a calibration must measure something"
    return speed


def replay(folder: Path = RECORDED) -> dict[str, float]:
    """The error of the plan in percent, by recording."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        with tempfile.TemporaryDirectory() as place:
            found[path.stem] = off_percent(json.loads(path.read_text()), Path(place))
    return found


# -------------------------------------------------------------------------------------- recording
def record(name: str, images: int, px: int, train: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        run = _Commands(Path(place))
        run("data", "synth", "hands", "--n", images)
        run("data", "prepare", "hands", "--out", "pack", "--size", px)
        settings, own = _settings(train), _settings({key: train[key] for key in train if key != "epochs"})
        calibrated = json.loads(run("calibrate", "--target", "local", *own, "--json"))
        calibration = run.recorded(calibrated["run_id"])
        run("submit", "--target", "local", "--name", "whole", *settings)
        run("watch", "whole")
        whole = json.loads(run("show", "whole", "--json"))
        run("collect", "whole")
        both = {_CALIBRATION: calibration, _RUN: run.recorded("whole")}
        both[_RUN]["took_s"] = whole["legs"][-1]["elapsed_s"]
        kept = {"config": whole["config"], "data": whole["data"], **both}
        write_atomic(RECORDED / f"{name}.json", json.dumps(kept) + "\n")


def _settings(train: dict[str, Any]) -> list[str]:
    return [word for key, value in train.items() for word in ("--set", f"train.{key}={json.dumps(value)}")]


class _Commands:
    """boneagectl in a folder of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.env = {**environment(), "BONEAGECTL_HOME": str(place / "home"), "HOME": str(place)}

    def __call__(self, *words: object) -> str:
        command = [sys.executable, "-m", "boneagectl", *map(str, words)]
        done = subprocess.run(command, cwd=self.place, env=self.env, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def recorded(self, run_id: str) -> dict[str, Any]:
        """What a forecast needs from a run's folder."""
        run = RunFolder(next((self.place / "home" / "runs" / run_id).glob("**/metrics.jsonl")).parent)
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        environment = json.loads(run.environment.read_text())
        shown = {key: environment.get(key) for key in ("gpus", "cores", "cpu", "times")}
        return {"metrics": [{key: line.get(key) for key in _KEPT} for line in lines], "environment": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--record", nargs="*", metavar="NAME", choices=[*_WORKS, []], help="run and record; default: all"
    )
    given = parser.parse_args()
    if given.record is not None:
        for name in given.record or _WORKS:
            print(f"recording {name} …", file=sys.stderr, flush=True)
            record(name, *_WORKS[name])
    found = replay()
    for name, percent in found.items():
        print(f"{name}: {percent:+.1f} % against its plan", file=sys.stderr)
    typical, worst = statistics.median(map(abs, found.values())), max(map(abs, found.values()))
    what = f"plan from a calibration against the measured time: median error of {len(found)} recorded runs"
    what += f", the largest {worst:.0f} %"
    show({"forecast": entry(what, "%", ours=round(typical, 2), at_most=AT_MOST_PERCENT)})


if __name__ == "__main__":
    main()
