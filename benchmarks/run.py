"""Runs every benchmark here, or those named, and merges their figures into results.json.

Exit code 1 if a bar is missed.
"""

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
    "house",
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
    "ledger_properties",
    "paper",
)
"""The other scripts here are parts of these. The longest is last."""


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
    """Whether a figure is within its bar; a figure without a bar is."""
    value = measured(figure)
    return bool(figure.get("at_least", value) <= value <= figure.get("at_most", value))


def measured(figure: dict[str, Any]) -> float:
    """What a bar limits: the ratio of both sides, or our side alone."""
    return float(figure.get("ratio", figure["ours"]))


if __name__ == "__main__":
    sys.exit(main())
