"""Checks the trainer end to end on a few images: overfits them, pauses, resumes, saves, reloads and predicts.

    python -m boneage_trainer.check [--preset NAME] [--data PACK] [--size-px 64] [--json]

It takes seconds and proves that a network, a device and an installation work before a run costs money. It says
nothing about accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from boneage_trainer.console import int_in_range, print_result, print_status, run_keras_command
from boneage_trainer.contract import (
    PRESETS,
    SENTINEL,
    STATE_SENTINEL,
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

TRAIN_IMAGES, HELD_OUT_IMAGES = 32, 4
"""Images to overfit; images each for validation and test."""
EPOCHS, HEAD_EPOCHS, PAUSE_AFTER = 40, 120, 3
"""A head alone learns more slowly, and its epochs cost next to nothing."""
_MAX_ERROR, _MAX_HEAD_ERROR = 0.35, 0.7
"""The training error that may remain, as a share of the median guess's: a head alone sees random features."""
_TOLERANCE_MONTHS = 0.05


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check, with the figures behind it."""

    name: str
    ok: bool
    detail: str


def check_trainer(preset: str, data: Path | None, size_px: int, folder: Path) -> list[CheckResult]:
    """Checks the network of `preset` in `folder`, on the first images of the pack `data` or on synthetic ones."""
    pack = _small_pack(data, folder, size_px)
    job = _overfit_job(preset, pack)
    run = RunFolder(folder / "run")
    first_end = _train_leg(job, pack, run, stop_after=PAUSE_AFTER)
    epochs_before = len(read_metrics(run.metrics))
    second_end = _train_leg(job, pack, run, stop_after=None)
    metrics = read_metrics(run.metrics)
    paused = first_end == "paused" and epochs_before >= PAUSE_AFTER
    resumed = second_end == "complete" and len(metrics) == job.train.epochs
    max_share = _MAX_ERROR if job.train.train_backbone else _MAX_HEAD_ERROR
    ages = np.array([float(row["boneage_months"]) for row in _read_rows(pack.index)[:TRAIN_IMAGES]])
    baseline, mae = float(np.abs(ages - np.median(ages)).mean()), metrics[-1]["mae_months"]
    errors = f"MAE {mae:.1f} months on {TRAIN_IMAGES} training images, {baseline:.1f} for their median"
    return [
        CheckResult("pauses", paused, f"{first_end} after epoch {epochs_before}"),
        CheckResult("resumes", resumed, f"{second_end} after epoch {len(metrics)}"),
        CheckResult("overfits", mae < max_share * baseline, errors),
        *_check_predictions(run, pack),
    ]


def _overfit_job(preset: str, pack: PackFolder) -> Job:
    """The preset's network and phases; only what keeps it from overfitting 32 images is changed."""
    head_only = not PRESETS[preset].settings.get("train_backbone", True)
    epochs = HEAD_EPOCHS if head_only else EPOCHS
    changes = {
        "learning_rate": 5e-3 if head_only else 2e-3, "head_learning_rate": 2e-3, "warmup_epochs": 1,
        "schedule": "cosine", "average_epochs": 0.0, "standardize_target": True, "augment": "none", "cached_views": 0,
        "dropout": 0.0, "split": "check.csv", "test_views": 1, "precision": "float32", "jit": "off",
    }  # fmt: skip
    train = TrainConfig.from_mapping({"preset": preset}).shortened(epochs, **changes)
    return Job(train=train, data=pack.job_data(), provenance={"check": True})


def _train_leg(job: Job, pack: PackFolder, run: RunFolder, stop_after: int | None) -> str:
    """Trains in this process and returns the final state; stops once `stop_after` epochs are written."""
    from boneage_trainer.data.pack import open_pack
    from boneage_trainer.train.loop import train

    session = _PausingSession(run, stop_after)
    session.start()
    session.epochs = job.train.epochs
    try:
        train(job, open_pack(pack.root, job.data), session, run)
    except TrainingStopped as stop:
        session.finish("paused", str(stop))
        return "paused"
    session.finish("complete")
    return "complete"


class _PausingSession(TrainingSession):
    """A session that asks to stop once `stop_after` epochs are written; None: never."""

    def __init__(self, run: RunFolder, stop_after: int | None) -> None:
        super().__init__(run, "check", None)
        self._stop_after = stop_after or sys.maxsize

    def stop_reason(self) -> str:
        return "the check pauses here" if self.epoch >= self._stop_after else super().stop_reason()


# ----------------------------------------------------------------------------------------- images
def _small_pack(data: Path | None, folder: Path, size_px: int) -> PackFolder:
    """A pack with a split of its own: the first images for training, the last for validation and test."""
    pack = PackFolder(folder / "pack")
    if data:
        source, count = PackFolder(data), TRAIN_IMAGES + 2 * HELD_OUT_IMAGES
        card = source.read_card()
        if card["count"] < count or not card["labelled"]:
            raise ContractError(f"pack {data} must have at least {count} images with ages for a check")
        pack.root.mkdir(parents=True)
        np.save(pack.images, np.load(source.images, mmap_mode="r")[:count])
        lines = source.index.read_text(encoding="utf-8").splitlines()[: count + 1]
        write_atomic(pack.index, "\n".join(lines) + "\n")
        write_json(pack.card, {**card, "count": count, "fingerprint": f"check-{card['fingerprint']}"})
    else:
        synthesize(folder / "hands", TRAIN_IMAGES + 2 * HELD_OUT_IMAGES, size_px, workers=1)
        prepare(folder / "hands", pack.root, size_px, workers=1)
    rows = _read_rows(pack.index)
    train_count = len(rows) - 2 * HELD_OUT_IMAGES
    parts = ["train"] * train_count + ["validation"] * HELD_OUT_IMAGES + ["test"] * HELD_OUT_IMAGES
    lines = [f"{row['id']},{part}" for row, part in zip(rows, parts, strict=True)]
    write_atomic(pack.root / "check.csv", "\n".join(["id,split", *lines]) + "\n")
    return pack


def _read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# ----------------------------------------------------------------------------------------- checks
def _check_predictions(run: RunFolder, pack: PackFolder) -> list[CheckResult]:
    """Compares ``predictions.csv`` with the reloaded model, as `train evaluate` and as `predict` use it."""
    from boneage_trainer.data.pack import open_pack
    from boneage_trainer.inference.model import AgePredictor, load_model
    from boneage_trainer.inference.reader import FilePredictor, FileRequest

    model, opened = load_model(run.model), open_pack(pack.root, pack.read_card())
    written = {row["id"]: float(row["predicted_months"]) for row in _read_rows(run.predictions)}
    rows = [row for row, id_ in enumerate(opened.ids) if id_ in written]
    reloaded = AgePredictor(model).predict_pack(opened, rows, views=1)[0]
    differences = [abs(float(months) - written[opened.ids[row]]) for row, months in zip(rows, reloaded, strict=True)]
    last = rows[-1]
    file = run.root / "image.png"
    cv2.imwrite(str(file), opened.images[[last]][0])
    request = FileRequest(file, float(opened.male[last]))
    ((from_file,),) = FilePredictor(model, views=1, accept_any=True).predict([request])
    from_png, from_run = from_file.months[0] if from_file.months else float("nan"), written[opened.ids[last]]
    return [
        CheckResult("saves and reloads", max(differences) < _TOLERANCE_MONTHS,
                    f"{len(rows)} predictions within {max(differences):.4f} months"),
        CheckResult("predicts a file", abs(from_png - from_run) < _TOLERANCE_MONTHS,
                    from_file.problem or f"{from_png:.2f} months from a PNG, {from_run:.2f} from the pack"),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- command
class _TrainerOutput(io.TextIOBase):
    """What the trainer prints, on stderr (stdout is for the result) and without its lines for machines."""

    _line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if not line.startswith((SENTINEL, STATE_SENTINEL)):
                print_status(line)
        return len(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.check", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny", help="network and phases to check (tiny)")
    parser.add_argument("--data", type=Path, metavar="PACK", help="use the first images of this pack (else synthetic)")
    parser.add_argument("--size-px", type=int_in_range(32, 512), default=64, help="side of synthetic images (64)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    preset = arguments.preset

    def command() -> None:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(_TrainerOutput()):
            checks = check_trainer(preset, arguments.data, arguments.size_px, Path(folder))
        elapsed_s, ok = time.monotonic() - started_s, all(check.ok for check in checks)
        lines = [f"{'ok' if check.ok else 'FAILED':<7}{check.name:<18}{check.detail}" for check in checks]
        result = {"preset": preset, "ok": ok, "checks": [asdict(check) for check in checks]}
        print_result({**result, "elapsed_s": round(elapsed_s, 1)}, "\n".join(lines), arguments.json)
        if not ok:
            raise ContractError(f"the trainer does not work on this machine with preset {preset}")
        print_status(f"the trainer works on this machine with preset {preset} ({elapsed_s:.0f} s)")

    return run_keras_command(command)


if __name__ == "__main__":
    sys.exit(main())
