"""What a command costs before it does anything: `--help` and `ls` against `import typer`, in one run.

    python benchmarks/startup.py [--rounds 15]

Prints one JSON object; CPU seconds (user and system) of a whole process, as the kernel counted them. The
commands alternate and the medians are compared. `ls` lists three finished runs from the place a user has
them in, with no environment variable set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from boneage_trainer.contract import TrainConfig
from boneagectl.ledger.store import opened
from boneagectl.models import Handle, JobSpec, LegState, Observation, Plan, Quote
from boneagectl.paths import Home

AT_MOST = 1.5
OTHER = ("-c", "import typer")
OURS = {"help": ("-m", "boneagectl", "--help"), "ls": ("-m", "boneagectl", "ls")}


def environment(home: Path) -> dict[str, str]:
    """Ours, but for a new home and without what would lead elsewhere; this tree's packages, installed or not.

    Bytecode is kept in `home`: an installed package has its own, and compiling it each time would be measured else.
    """
    others = ("BONEAGECTL_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: text for key, text in os.environ.items() if not key.startswith(others)}
    paths = os.pathsep.join(path for path in sys.path[1:] if path)
    return {**kept, "HOME": str(home), "PYTHONPATH": paths, "PYTHONPYCACHEPREFIX": str(home / "bytecode")}


def fill_ledger() -> None:
    """Three runs that are over, in the ledger that `ls` will find."""
    home = Home.default()
    home.create()
    with opened(home.ledger) as ledger:
        for number in range(3):
            plan = finished_plan(f"bone-261123-run{number}")
            ledger.reserve(plan, "0" * 64)
            ledger.attach(plan.leg_id, Handle("local", plan.leg_id))
            ledger.observe(plan.leg_id, Observation(LegState.COMPLETE, "", 24, 24, 600))


def finished_plan(run_id: str) -> Plan:
    data = {"fingerprint": "0" * 64, "count": 600, "image_size_px": 128}
    spec = JobSpec(TrainConfig(), Path("pack"), data, "local", 3600, {})
    return Plan(run_id, 1, spec, Quote("local", 3600, 0, 0, 1, "benchmark", "2026-11-23"), ())


def cpu_s(arguments: tuple[str, ...], folder: Path) -> float:
    """The CPU time of one new interpreter; raises where it fails."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return usage.ru_utime + usage.ru_stime


def measure(arguments: tuple[str, ...], folder: Path, rounds: int) -> dict[str, float]:
    cpu_s(arguments, folder), cpu_s(OTHER, folder)  # these compile
    pairs = [(cpu_s(arguments, folder), cpu_s(OTHER, folder)) for _ in range(rounds)]
    ours, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"ours": round(ours, 4), "other": round(other, 4), "ratio": round(ours / other, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(changed := environment(Path(place)))
        for name in os.environ.keys() - changed.keys():
            del os.environ[name]
        fill_ledger()
        result = {f"startup_{name}": entry(name, Path(place), rounds) for name in OURS}
    json.dump(result, sys.stdout)
    print()


def entry(name: str, folder: Path, rounds: int) -> dict[str, object]:
    shown = " ".join(OURS[name][1:])
    return {
        **measure(OURS[name], folder, rounds),
        "unit": "CPU s",
        "what": f"{shown} against python -c 'import typer'",
        "command": "python benchmarks/startup.py" + (f" --rounds {rounds}" if rounds != 15 else ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "at_most": AT_MOST,
    }


if __name__ == "__main__":
    main()
