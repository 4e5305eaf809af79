"""One training from nothing to a report, on this machine, by the very commands a user types."""

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
    say(f"1/4 drawing {IMAGES} synthetic hand radiographs")
    run("data", "synth", f"hands-{IMAGES}", "--n", str(IMAGES), "--size", str(SIZE_PX))
    say("2/4 packing them")
    run("data", "prepare", f"hands-{IMAGES}", "--out", f"pack-{IMAGES}", "--size", str(SIZE_PX))
    say("3/4 training on this machine")
    settings = (
        "--set",
        f"train.epochs={EPOCHS}",
        "--data",
        f"pack-{IMAGES}",
        "--time-limit",
        "20m",
        "--yes",
        "--quiet",
    )
    run_id = run("submit", "--target", "local", *settings).strip()
    run("watch", run_id, "--every", "1")
    say("4/4 collecting and writing the report")
    folder = Path(run("collect", run_id).strip())
    report = run("report", run_id, "--quiet").strip()
    test = json.loads((folder / "evaluation.json").read_text())["sets"]["test"]
    print(f"MAE {test['mae_months']:.1f} months on {test['n']} synthetic test images it never saw")
    print(f"    (always answering the median age: {test['baseline_median_mae_months']:.1f} months)")
    print(f"report: {report}")
    say(f"{time.monotonic() - began_s:.0f} s. For research and education only; not a medical device.")


def run(*arguments: str) -> str:
    """One boneagectl command, its state in the demo's folder; its talk goes straight to the terminal."""
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
