"""Runs every benchmark here, or those named, and merges their figures into results.json; a missed bar is exit
code 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
BENCHMARKS = (
    "startup",
    "prepare",
    "input",
    "memory",
    "checkpoint",
    "predict",
    "reports",
    "kaggle_target",
    "azure_target",
    "colab_target",
    "ledger",
    "forecast",
    "rings",
    "paper",
)
"""Those that measure; the other scripts here are parts of them. The longest is last."""


def main() -> int:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        command = [sys.executable, str(FOLDER / f"{name}.py")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.update(json.loads(done.stdout))
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    missed = [name for name, figure in results.items() if not holds(figure)]
    for name, figure in results.items():
        print(f"{'MISSED' if name in missed else 'ok    '} {name}: {measured(figure):g} ({figure['what']})")
    return 1 if missed else 0


def holds(figure: dict[str, Any]) -> bool:
    """Whether a figure keeps to its bar; one without a bar always does."""
    value = measured(figure)
    return bool(figure.get("at_least", value) <= value <= figure.get("at_most", value))


def measured(figure: dict[str, Any]) -> float:
    """What a bar is about: the ratio of both sides, or our side alone where only that is bounded."""
    return float(figure.get("ratio", figure["ours"]))


if __name__ == "__main__":
    sys.exit(main())
