"""What several tests need: a command line to call, a pack to name, a wait with an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import PackFolder, TrainConfig, write_json
from boneagectl import locks
from boneagectl.models import JobSpec, Plan, Quote

ROOT = Path(__file__).resolve().parents[1]
KAGGLE_PACK = "alice/boneage-pack"
DATA = {"fingerprint": "9eab" * 16, "count": 600, "image_size_px": 96}


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Outcome]


def environment(**more: str) -> dict[str, str]:
    """This environment, for a Python that shall find both packages and the tests."""
    folders = [str(ROOT / name) for name in ("orchestrator", "trainer", "tests")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **more}


def boneagectl(*arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Outcome:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "boneagectl", *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(**(env or {})), cwd=cwd, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def make_pack(root: Path, **other: Any) -> Path:
    """As much of a pack as the orchestrator looks at."""
    write_json(PackFolder(root).card, {"schema": 1, "labelled": True, **DATA, **other})
    return root


def make_spec(pack: Path = Path("/no/pack"), time_limit_s: int = 3600, target: str = "local", **train: Any) -> JobSpec:
    config = TrainConfig.from_mapping(train)
    return JobSpec(config, pack, dict(DATA), target, time_limit_s, {"git_commit": None})


def make_plan(run_id: str, number: int = 1, worst_s: int = 3600, worst_usd_micro: int = 0) -> Plan:
    quote = Quote("local", worst_s, worst_usd_micro, 0, 1, "test", "2026-11-24")
    return Plan(run_id, number, make_spec(), quote, ())


def wait_for(condition: Callable[[], object], limit_s: float = 15) -> None:
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up, "the condition did not hold in time"
        time.sleep(0.01)


def starts(home: Path) -> dict[str, int]:
    """How often each leg's program was started."""
    return {path.parent.name: len(path.read_text().split()) for path in (home / "local").glob("*/starts.txt")}


def first_or_long(values: tuple[str, ...], often: tuple[str, ...]) -> list[Any]:
    """Parameters of which those in `often` are always tried, the others by `make test-long`."""
    return [value if value in often else pytest.param(value, marks=pytest.mark.long) for value in values]


def end_everything(home: Path) -> None:
    """Kills what still runs below `home`; a process id counts only while its leg's lock is held."""
    for path in (home / "local").glob("*/starts.txt"):
        if locks.is_held(path.parent / "alive.lock"):
            for pid in map(int, path.read_text().split()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def assert_golden(name: str, text: str) -> None:
    """`text` is what ``golden/NAME`` holds; ACCEPT_GOLDEN=1 writes it there, to be read in the diff."""
    path = ROOT / "tests" / "golden" / name
    if os.environ.get("ACCEPT_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def end_leg(home: Path, leg: str) -> None:
    """A kill, so that the next look finds it lost, or failed before it had a state, and settles it."""
    for pid in map(int, (home / "local" / leg / "starts.txt").read_text().split()):
        os.kill(pid, signal.SIGKILL)
