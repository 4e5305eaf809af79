"""One run from synthetic hands to a report on this machine, by the commands that a user types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / ".demo"
IMAGES, SIZE_PX, EPOCHS = 1200, 64, 14


def main() -> None:
    began_s = time.monotonic()
    DEMO.mkdir(exist_ok=True)
    say(f"1/4 generating {IMAGES} synthetic hand radiographs")
    run("data", "synth", f"hands-{IMAGES}", "--n", str(IMAGES), "--size", str(SIZE_PX))
    say("2/4 preparing the pack")
    run("data", "prepare", f"hands-{IMAGES}", "--out", f"pack-{IMAGES}", "--size", str(SIZE_PX))
    say("3/4 training on this machine")
    epochs, pack = f"train.epochs={EPOCHS}", f"pack-{IMAGES}"
    options = ("--set", epochs, "--data", pack, "--time-limit", "20m", "--yes", "--quiet")
    run_id = run("submit", "--target", "local", *options).strip()
    run("watch", run_id, "--every", "1")
    say("4/4 collecting and writing the report")
    folder = Path(run("collect", run_id).strip())
    report = run("report", run_id, "--quiet").strip()
    test = json.loads((folder / "evaluation.json").read_text())["sets"]["test"]
    print(f"test MAE {test['mae_months']:.1f} months on {test['n']} synthetic images that were not used for training")
    print(f"    (always predicting the median age: {test['baseline_median_mae_months']:.1f} months)")
    print(f"report: {report}")
    say(f"{time.monotonic() - began_s:.0f} s. For research and education only; not a medical device.")


def run(*arguments: str) -> str:
    """Standard output of one boneagectl command, with its state in the demo's folder."""
    environment = {**os.environ, "BONEAGECTL_HOME": str(DEMO / "state")}
    command = [sys.executable, "-m", "boneagectl", *arguments]
    done = subprocess.run(command, cwd=DEMO, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
