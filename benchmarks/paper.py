"""The student paper's whole training run against ours on the same full-size files, as processes.

    python benchmarks/paper.py [--folder PNGS] [--n 640] [--epochs 15] [--side both]

The other side is paper_loop.py. Ours is `boneage_trainer.data.prepare` and then the trainer with preset `paper`.
Neither has pretrained weights, which do not change the time. Each side runs
once, after the other; everything from starting its first interpreter to its last file is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, add_file_options, entry, environment, kind_of_files, make_tree, months, show

from boneage_trainer.console import print_status
from boneage_trainer.contract import Job, PackFolder, RunFolder, TrainConfig

AT_LEAST = 12
SIZE_PX = 224


def run(*arguments: str) -> str:
    """The standard output of a new interpreter; its stderr is shown. Raises where it fails."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def theirs(paths: list[str], place: Path, epochs: int) -> dict[str, float]:
    lines = (f"{path},{months(at)}\n" for at, path in enumerate(paths))
    labels = place / "labels.csv"
    labels.write_text("path,boneage\n" + "".join(lines))
    started_s = time.perf_counter()
    script = str(ROOT / "benchmarks" / "paper_loop.py")
    parts = json.loads(run(script, str(labels), str(place), "--epochs", str(epochs)))
    total_s = time.perf_counter() - started_s
    return {"total_s": total_s, "start_s": total_s - parts["fit_s"] - parts["predict_s"], **parts}


def ours(tree: Path, place: Path, epochs: int) -> dict[str, float]:
    """Prepare and train; the features of a frozen backbone are computed once, which makes the difference."""
    pack, out = place / "pack", RunFolder(place / "run")
    started_s = time.perf_counter()
    run("-m", "boneage_trainer.data.prepare", str(tree), "--out", str(pack), "--size-px", str(SIZE_PX))
    prepared_s = time.perf_counter()
    job = job_of(pack, place, epochs)
    print_status(run("-m", "boneage_trainer", str(job), "--data", str(pack), "--out", str(out.root)))
    done_s = time.perf_counter()
    times = json.loads(out.environment.read_text())["times"]
    return {"total_s": done_s - started_s, "prepare_s": prepared_s - started_s, **_without_total(times)}


def _without_total(times: dict[str, float]) -> dict[str, float]:
    return {("train_process_s" if key == "total_s" else key): value for key, value in times.items()}


def job_of(pack: Path, place: Path, epochs: int) -> Path:
    card = PackFolder(pack).read_card()
    config = TrainConfig.from_mapping({"preset": "paper", "weights": "none", "split": "paper", "epochs": epochs})
    data = {key: card[key] for key in ("fingerprint", "count", "image_size_px")}
    path = place / "job.json"
    path.write_text(Job(train=config, data=data, provenance={}).to_json())
    return path


def rounded(parts: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 2) for key, value in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_file_options(parser, 640)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--side", choices=("both", "ours", "other"), default="both", help="one side alone: to try it")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        paths = make_tree(place / "set", given.folder, given.n)
        os.sync()
        if given.side != "other":
            found["ours"] = ours(place / "set", place, given.epochs)
            print_status(f"ours: {rounded(found['ours'])}")
        if given.side != "ours":
            found["other"] = theirs(paths, place, given.epochs)
            print_status(f"other: {rounded(found['other'])}")
    if given.side == "both":
        show({"paper": _entry(found["ours"], found["other"], given)})


def _entry(mine: dict[str, float], other: dict[str, float], given: argparse.Namespace) -> dict[str, Any]:
    return entry(
        f"the student paper's training (VGG16 frozen, {given.epochs} epochs) of {given.n} "
        f"{kind_of_files(given.folder)}, from the files to the predictions: seconds of ours, and of its own loop",
        "s", ours=round(mine["total_s"], 1), other=round(other["total_s"], 1),
        ratio=round(other["total_s"] / mine["total_s"], 2), at_least=AT_LEAST,
        parts={"ours": rounded(mine), "other": rounded(other)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
