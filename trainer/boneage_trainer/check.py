"""Runs the whole trainer on a handful of images, in seconds: learn by heart, pause, go on, save, load, predict.

    python -m boneage_trainer.check [--preset NAME] [--data PACK] [--size-px 64] [--json]

It proves a network, a device and an installation before anything is paid for; it says nothing of accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boneage_trainer.console import int_in_range, print_result, print_status, run_command
from boneage_trainer.contract import (
    PRESETS,
    ContractError,
    Job,
    PackFolder,
    RunFolder,
    TrainConfig,
    read_metrics,
    write_atomic,
    write_json,
)
from boneage_trainer.data.prepare import prepare
from boneage_trainer.data.synth import synthesize
from boneage_trainer.train.session import TrainingSession, TrainingStopped

LEARNED, ASIDE = 32, 4
"""How many images are learned by heart, and how many each are for validation and test."""
EPOCHS, HEAD_EPOCHS, PAUSE_AFTER = 40, 120, 3
"""A head alone learns more slowly, and its epochs cost next to nothing."""
_BY_HEART, _HEAD_LEARNED = 0.35, 0.7
"""The share of the median guess's error that may be left: a head alone sees them through random weights."""
_TOLERANCE_MONTHS = 0.05


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: what, whether it holds, and the figure behind it."""

    name: str
    ok: bool
    detail: str


def check(preset: str, data: Path | None, size_px: int, folder: Path) -> list[Check]:
    """Checks the trainer with the network of `preset` in `folder`, on the first images of `data` or on drawn ones."""
    pack = _small_pack(data, folder, size_px)
    job = _job(preset, pack)
    out = RunFolder(folder / "run")
    paused = _leg(job, pack, out, stop_after=PAUSE_AFTER)
    seen = len(read_metrics(out.metrics))
    ended = _leg(job, pack, out, stop_after=None)
    lines = read_metrics(out.metrics)
    return [
        Check("pauses", paused == "paused" and seen >= PAUSE_AFTER, f"{paused} after epoch {seen}"),
        Check("goes on", ended == "complete" and len(lines) == job.train.epochs, f"{ended} after epoch {len(lines)}"),
        _by_heart(lines, pack, _BY_HEART if job.train.train_backbone else _HEAD_LEARNED),
        *_answers(out, pack),
    ]


def _job(preset: str, pack: PackFolder) -> Job:
    """The preset's network and phases; only what keeps it from learning 32 images by heart is changed."""
    alone = not PRESETS[preset].settings.get("train_backbone", True)
    epochs = HEAD_EPOCHS if alone else EPOCHS
    small = {
        "learning_rate": 5e-3 if alone else 2e-3, "head_learning_rate": 2e-3, "warmup_epochs": 1,
        "schedule": "cosine", "average_epochs": 0.0, "standardize_target": True, "augment": "none", "cached_views": 0,
        "dropout": 0.0, "split": "check.csv", "test_views": 1, "precision": "float32", "jit": "off",
    }  # fmt: skip
    train = TrainConfig.from_mapping({"preset": preset}).shortened(epochs, **small)
    return Job(train=train, data=pack.job_data(), provenance={"check": True})


def _leg(job: Job, pack: PackFolder, out: RunFolder, stop_after: int | None) -> str:
    """Trains in this process and returns how it ended; asks it to stop once `stop_after` epochs are written."""
    from boneage_trainer.data.pack import open_pack
    from boneage_trainer.train.loop import train

    session = _Pausing(out, stop_after)
    session.start()
    session.epochs = job.train.epochs
    try:
        train(job, open_pack(pack.root, job.data), session, out)
    except TrainingStopped as stop:
        session.finish("paused", str(stop))
        return "paused"
    session.finish("complete")
    return "complete"


class _Pausing(TrainingSession):
    """A session that is asked to stop once `stop_after` epochs are written; None: never."""

    def __init__(self, out: RunFolder, stop_after: int | None) -> None:
        super().__init__(out, "check", None)
        self._stop_after = stop_after or sys.maxsize

    def stop_reason(self) -> str:
        return "asked by the check" if self.epoch >= self._stop_after else super().stop_reason()


# ------------------------------------------------------------------------------------ the images
def _small_pack(data: Path | None, folder: Path, size_px: int) -> PackFolder:
    """A pack of its own with a split: the first images learned, the others validated and tested."""
    pack = PackFolder(folder / "pack")
    if data:
        _cut(PackFolder(data), pack)
    else:
        synthesize(folder / "hands", LEARNED + 2 * ASIDE, size_px, workers=1)
        prepare(folder / "hands", pack.root, size_px, workers=1)
    rows = _rows(pack)
    parts = ["train"] * (len(rows) - 2 * ASIDE) + ["validation"] * ASIDE + ["test"] * ASIDE
    lines = [f"{row['id']},{part}" for row, part in zip(rows, parts, strict=True)]
    write_atomic(pack.root / "check.csv", "\n".join(["id,split", *lines]) + "\n")
    return pack


def _cut(source: PackFolder, pack: PackFolder) -> None:
    """The first images of `source` as a pack."""
    card, count = source.read_card(), LEARNED + 2 * ASIDE
    if card["count"] < count or not card["labelled"]:
        raise ContractError(f"pack {source.root} has not the {count} images with an age that a check needs")
    pack.root.mkdir(parents=True)
    np.save(pack.images, np.load(source.images, mmap_mode="r")[:count])
    lines = source.index.read_text(encoding="utf-8").splitlines()[: count + 1]
    write_atomic(pack.index, "\n".join(lines) + "\n")
    write_json(pack.card, {**card, "count": count, "fingerprint": f"check-{card['fingerprint']}"})


def _rows(pack: PackFolder) -> list[dict[str, str]]:
    with open(pack.index, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# ------------------------------------------------------------------------------------ the findings
def _by_heart(lines: list[dict[str, Any]], pack: PackFolder, most: float) -> Check:
    ages = np.array([float(row["boneage_months"]) for row in _rows(pack)[:LEARNED]])
    guess, left = float(np.abs(ages - np.median(ages)).mean()), lines[-1]["mae_months"]
    detail = f"MAE {left:.1f} months on {LEARNED} images it was shown, {guess:.1f} by guessing"
    return Check("learns by heart", left < most * guess, detail)


def _answers(out: RunFolder, pack: PackFolder) -> list[Check]:
    """The saved model, loaded, against what was written; from the pack, and from a file."""
    from boneage_trainer.inference.model import predict, predict_load, squares_of

    model, images, rows = predict_load(out.model), np.load(pack.images, mmap_mode="r"), _rows(pack)
    place = {row["id"]: at for at, row in enumerate(rows)}
    with open(out.predictions, newline="", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    gaps = [
        abs(float(predict(model, images[[place[row["id"]]]], float(row["male"] == "True"))[0])
            - float(row["predicted_months"]))
        for row in written
    ]  # fmt: skip
    one = rows[-1]
    file = out.root / "one.png"
    cv2.imwrite(str(file), images[place[one["id"]]])
    from_file = float(predict(model, squares_of([file], images.shape[1]), float(one["male"] == "True"))[0])
    from_run = float(next(row["predicted_months"] for row in written if row["id"] == one["id"]))
    within = f"{len(gaps)} predictions within {max(gaps):.4f} months"
    both = f"{from_file:.2f} months from a PNG, {from_run:.2f} from the pack"
    return [
        Check("saves and loads", max(gaps) < _TOLERANCE_MONTHS, within),
        Check("predicts a file", abs(from_file - from_run) < _TOLERANCE_MONTHS, both),
    ]


# ------------------------------------------------------------------------------------ command line
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.check", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny", help="whose network and phases (tiny)")
    parser.add_argument("--data", type=Path, metavar="PACK", help="take the first images of this pack; else drawn ones")
    parser.add_argument("--size-px", type=int_in_range(32, 512), default=64, help="side of the drawn images (64)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)

    def command() -> None:
        began_s = time.monotonic()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with tempfile.TemporaryDirectory() as place:
            found = _quietly(lambda: check(given.preset, given.data, given.size_px, Path(place)))
        lines = [f"{'ok' if one.ok else 'FAILED':<7}{one.name:<16}{one.detail}" for one in found]
        result = {"preset": given.preset, "ok": all(one.ok for one in found), "checks": [asdict(one) for one in found]}
        print_result({**result, "elapsed_s": round(time.monotonic() - began_s, 1)}, "\n".join(lines), given.json)
        if not result["ok"]:
            raise ContractError(f"the trainer does not work here with preset {given.preset}")
        print_status(f"the trainer works here with preset {given.preset} ({time.monotonic() - began_s:.0f} s)")

    return run_command(command)


def _quietly(work: Callable[[], list[Check]]) -> list[Check]:
    """The training's own lines go to stderr, since stdout is for the findings."""
    with contextlib.redirect_stdout(sys.stderr):
        return work()


if __name__ == "__main__":
    sys.exit(main())
