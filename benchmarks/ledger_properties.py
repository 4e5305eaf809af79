"""Random steps on all targets at once, a million of them: tests/test_ledger_properties.py for longer, on every core.

    python benchmarks/ledger_properties.py [--steps 1000000]

What holds after each step is asserted there: no cap is crossed, every machine is known and none is made twice, no epoch
is lost, and the lines of the ledger explain its figures. A step that breaks one ends this with the shortest way there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from typing import Any

from common import ROOT, entry, show

sys.path.insert(0, str(ROOT / "tests"))

_RUNS = 100
"""Examples after which hypothesis is started again, because it remembers all of them."""
_AT_ONCE = 8


def walk(runs: int) -> int:
    """Takes that many runs of random steps; returns how many steps."""
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    from test_ledger_properties import PER_RUN, LedgerMachine, TestLedgerProperties

    class Counted(LedgerMachine):
        taken, has_begun = 0, False

        def check_invariants(self, *given: Any, **named: Any) -> Any:
            """After the beginning, and after each step."""
            Counted.taken += self.has_begun
            self.has_begun = True
            return super().check_invariants(*given, **named)

    chance = settings(TestLedgerProperties.settings, derandomize=False, max_examples=runs, stateful_step_count=PER_RUN)
    run_state_machine_as_test(Counted, settings=chance)
    return Counted.taken


def walks(steps: int) -> Iterator[int]:
    """How many steps each of several processes took, at least `steps` together; each has a chance of its own."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        taken = 0
        while taken < steps:
            for number in pool.imap_unordered(walk, [_RUNS] * _AT_ONCE):
                taken += number
                yield number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    given = parser.parse_args()
    began_s, taken = time.monotonic(), 0
    for number in walks(given.steps):
        taken += number
        print(f"\r{taken:,} steps", end="", file=sys.stderr, flush=True)
    print(f" in {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    what = "random steps on all targets after which every promise held"
    show({"ledger_properties": entry(what, "steps", ours=taken, at_least=given.steps)})


if __name__ == "__main__":
    main()
