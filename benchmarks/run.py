"""Runs every benchmark here and merges their figures into results.json; a missed bar is exit code 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"


def main() -> int:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for script in sorted(FOLDER.glob("*.py")):
        if script.name != Path(__file__).name:
            print(f"{script.name} …", file=sys.stderr, flush=True)
            done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=True)
            results.update(json.loads(done.stdout))
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    missed = [name for name, figure in results.items() if not holds(figure)]
    for name, figure in results.items():
        print(f"{'MISSED' if name in missed else 'ok    '} {name}: {figure['ratio']:.2f} ({figure['what']})")
    return 1 if missed else 0


def holds(figure: dict[str, Any]) -> bool:
    """Whether a figure keeps to its bar; one without a bar always does."""
    ratio = figure["ratio"]
    return bool(figure.get("at_least", ratio) <= ratio <= figure.get("at_most", ratio))


if __name__ == "__main__":
    sys.exit(main())
