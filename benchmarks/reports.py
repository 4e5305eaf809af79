"""CPU time and size of the pages over 50 runs: their comparison, and the index of all runs.

    python benchmarks/reports.py [--runs 50] [--epochs 100]

Each run has a complete folder: a line per epoch, 2,523 test and 2,017 validation predictions, a split of 12,611 images,
its evaluation and its environment. CPU seconds (user and system) of a new interpreter and its child that read all of
it, pair every run with the first by a bootstrap of 1,000 draws, and render; median of three. Bytes of the larger page.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, entry, environment, show

sys.path.insert(0, str(ROOT / "tests"))

from boneage_trainer.contract import RunFolder
from report import several_runs
from report.sample_run import predictions, write_csv

ROUNDS = 3
CPU_AT_MOST_S, BYTES_AT_MOST = 2.0, 1_000_000
TESTED, IMAGES = 2523, 12_611
PROGRAM = """
import json, sys
from pathlib import Path
from boneage_trainer.contract import RunFolder
from boneagectl.report import comparison, index_page
root, out = Path(sys.argv[1]), Path(sys.argv[2])
facts = json.loads((root / "facts.json").read_text())
folders = [RunFolder(root / run["run_id"]) for run in facts]
if sys.argv[3] == "compare":
    compared = comparison.compare_folders(folders, facts, sys.executable, "benchmark")
    assert len(compared.pairs) == len(facts) - 1 and all(pair.ci95_months for pair in compared.pairs)
    out.write_text(comparison.render_comparison(compared))
else:
    report = root / "report.html"
    rows = [index_page.build_row(folder, run, report, out) for folder, run in zip(folders, facts, strict=True)]
    out.write_text(index_page.render_index(rows))
"""


def make_runs(root: Path, runs: int, epochs: int) -> None:
    """Runs of the paper's sizes, each a little worse than the one before."""
    validation = predictions({"validation": 2017})
    facts = [several_runs.facts(f"benchmark-run-{number:02d}") for number in range(runs)]
    (root / "facts.json").write_text(json.dumps(facts))
    everything = several_runs.rows_of(IMAGES)
    for number, run in enumerate(facts):
        rows = several_runs.rows_of(TESTED, number / 100)
        folder = several_runs.fill(RunFolder(root / run["run_id"]), rows, epochs)
        write_csv(folder.predictions, [*rows, *validation])
        several_runs.write_split(folder.split, everything)


def cpu_s(root: Path, out: Path, page: str) -> float:
    """The CPU time of one new interpreter and its child; raises where it fails."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(root), str(out), page], env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def median_s(root: Path, out: Path, page: str) -> float:
    return statistics.median(cpu_s(root, out, page) for _ in range(ROUNDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_runs(root, given.runs, given.epochs)
        pages = {page: root / f"{page}.html" for page in ("compare", "index")}
        times_s = {page: median_s(root, path, page) for page, path in pages.items()}
        sizes = {page: path.stat().st_size for page, path in pages.items()}
    show(_entries(given, times_s, sizes))


def _entries(given: argparse.Namespace, times_s: dict[str, float], sizes: dict[str, int]) -> dict[str, Any]:
    scope = f"{given.runs} runs of {given.epochs} epochs and {TESTED} test predictions"
    parts = {key: round(value, 3) for key, value in times_s.items()}
    largest = max(sizes, key=lambda page: sizes[page])
    return {
        "report_compare": entry(f"CPU of comparing {scope}, paired bootstrap and HTML included", "CPU s",
                                ours=parts["compare"], at_most=CPU_AT_MOST_S),
        "report_index": entry(f"CPU of the index page over {scope}", "CPU s", ours=parts["index"],
                              at_most=CPU_AT_MOST_S),
        "report_size": entry(f"the larger of both pages ({largest})", "bytes", ours=sizes[largest],
                             at_most=BYTES_AT_MOST),
    }  # fmt: skip


if __name__ == "__main__":
    main()
