"""The cost of reading a large ledger: `ls`, `budget` and `plan` on 100,000 legs, against an empty one.

    python benchmarks/ledger.py [--legs 100000]

CPU seconds (user and system) of a whole process, medians of five. The legs are of runs with four each, on all
accounts, reserved and settled.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, entry, environment, show

sys.path.insert(0, str(ROOT / "tests"))

from boneagectl.ledger.store import opened
from boneagectl.targets import NAMES
from support import make_pack

ROUNDS, AT_MOST_S = 5, 0.5
CONFIG = '{"preset": "tiny", "epochs": 80, "batch_size": 32, "seed": 1}'
DATA = '{"count": 1, "image_size_px": 96, "fingerprint": ""}'
COMMANDS = {"ls": ("ls",), "budget": ("budget",), "plan": ("plan",)}


def fill(path: Path, legs: int) -> None:
    """Straight into the tables: by the ledger itself, with a sync for each booking, this would take an hour."""
    now_s, rows = int(time.time()), []
    while len(rows) < legs:
        run = f"bone-{len(rows):06d}"
        rows += [(f"{run}-{number:02d}", run, number, NAMES[len(rows) // 4 % len(NAMES)]) for number in range(1, 5)]
    with sqlite3.connect(path) as db:
        runs = sorted({row[1] for row in rows})
        db.executemany("insert into runs values (?, ?, ?, 'pack', '', ?)",
                       [(run, CONFIG, DATA, now_s - 1000) for run in runs])  # fmt: skip
        db.executemany("insert or ignore into accounts (name, created_s) values (?, 0)", [(name,) for name in NAMES])
        db.executemany(
            """insert into legs (leg_id, run_id, number, target, state, epochs, time_limit_s, created_s)
               values (?, ?, ?, ?, 'complete', 80, 3600, ?)""", [(*row, now_s - 900) for row in rows],
        )  # fmt: skip
        db.executemany("insert into reservations values (?, ?, 1000, 3600, ?)",
                       [(row[0], row[3], now_s - 900) for row in rows])  # fmt: skip
        db.executemany("insert into settlements values (?, 500, 60, 'ended: complete', ?)",
                       [(row[0], now_s - 100) for row in rows])  # fmt: skip
    db.close()


def cpu_s(words: tuple[str, ...], place: Path) -> float:
    env = {**environment(), "HOME": str(place), "BONEAGECTL_HOME": str(place / "home")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "boneagectl", *words], cwd=place, env=env, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(place: Path) -> dict[str, float]:
    return {name: statistics.median(cpu_s(words, place) for _ in range(ROUNDS)) for name, words in COMMANDS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--legs", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make_pack(place / "pack")
        (place / "home").mkdir()
        with opened(place / "home" / "ledger.db"):
            pass
        empty = medians(place)
        fill(place / "home" / "ledger.db", given.legs)
        full = medians(place)
    show({f"ledger_{name}": entry(f"CPU of `boneagectl {name}` on a ledger of {given.legs:,} legs, and on an empty one",
                                  "s", ours=round(full[name], 2), other=round(empty[name], 2),
                                  at_most=AT_MOST_S) for name in COMMANDS})  # fmt: skip


if __name__ == "__main__":
    main()
