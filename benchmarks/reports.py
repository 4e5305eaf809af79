"""What a page over 50 runs costs: their comparison, and the index of all runs.

    python benchmarks/reports.py [--runs 50] [--epochs 100]

Each run has a whole folder: a line an epoch, 2,523 test and 2,017 validation predictions, a split of 12,611 images,
its evaluation and its environment. CPU seconds (user and system) of a new interpreter that reads all of it, pairs every
run with the first by a bootstrap of a thousand draws, and renders; median of three. Bytes of the larger page.
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
from boneagectl.report import compare, compared, index
place, out = Path(sys.argv[1]), Path(sys.argv[2])
facts = json.loads((place / "facts.json").read_text())
folders = [RunFolder(place / one["run_id"]) for one in facts]
if sys.argv[3] == "compare":
    found = compare.compared([compared.load(*both) for both in zip(folders, facts, strict=True)], "benchmark")
    assert len(found.pairs) == len(facts) - 1 and all(pair.ci95_months for pair in found.pairs)
    out.write_text(compare.to_html(found))
else:
    report = place / "report.html"
    entries = [index.entry(folder, one, report, out) for folder, one in zip(folders, facts, strict=True)]
    out.write_text(index.render(entries))
"""


def make_runs(place: Path, runs: int, epochs: int) -> None:
    """Runs of the paper's sizes, each a little worse than the one before."""
    validation = predictions({"validation": 2017})
    facts = [several_runs.facts(f"benchmark-run-{number:02d}") for number in range(runs)]
    (place / "facts.json").write_text(json.dumps(facts))
    everything = several_runs.rows_of(IMAGES)
    for number, one in enumerate(facts):
        rows = several_runs.rows_of(TESTED, number / 100)
        folder = several_runs.fill(RunFolder(place / one["run_id"]), rows, epochs)
        write_csv(folder.predictions, [*rows, *validation])
        several_runs.write_split(folder.split, everything)


def cpu_s(place: Path, out: Path, what: str) -> float:
    """The CPU time of one new interpreter; raises where it fails."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(place), str(out), what], env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def median_s(place: Path, out: Path, what: str) -> float:
    return statistics.median(cpu_s(place, out, what) for _ in range(ROUNDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make_runs(place, given.runs, given.epochs)
        pages = {what: place / f"{what}.html" for what in ("compare", "index")}
        times_s = {what: median_s(place, page, what) for what, page in pages.items()}
        sizes = {what: page.stat().st_size for what, page in pages.items()}
    show(_entries(given, times_s, sizes))


def _entries(given: argparse.Namespace, times_s: dict[str, float], sizes: dict[str, int]) -> dict[str, Any]:
    of = f"{given.runs} runs of {given.epochs} epochs and {TESTED} test predictions"
    parts = {key: round(value, 3) for key, value in times_s.items()}
    largest = max(sizes, key=lambda what: sizes[what])
    return {
        "report_compare": entry(f"CPU of comparing {of}, paired bootstrap and HTML included", "CPU s",
                                ours=parts["compare"], at_most=CPU_AT_MOST_S),
        "report_index": entry(f"CPU of the index page over {of}", "CPU s", ours=parts["index"],
                              at_most=CPU_AT_MOST_S),
        "report_size": entry(f"the larger of both pages ({largest})", "bytes", ours=sizes[largest],
                             at_most=BYTES_AT_MOST),
    }  # fmt: skip


if __name__ == "__main__":
    main()
