"""Metrics that a run folder lacks, computed by the trainer's metrics module in the interpreter that trains.

The orchestrator itself has no numpy. One process serves a whole report or comparison; what it computes is not kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boneage_trainer
from boneage_trainer.contract import ContractError, RunFolder, parse_object
from boneagectl.report.text import number, numbers, section

SETS = ("test", "validation")
"""The evaluated sets; the first that a run has is the one its report is about."""
SECTIONS = (
    "n", "mae_months", "mae_ci95_months", "rmse_months", "r2", "bias_months", "within_6_months", "within_12_months",
    "within_24_months", "loa_low_months", "regression_to_the_mean", "calibration", "by_sex", "by_age_band",
    "by_sex_and_age_band", "worst",
)  # fmt: skip
"""What a report shows of each set; an evaluation by an older trainer may lack some."""
_TIMEOUT_S = 600
_MAX_BYTES = 64_000_000
_PROGRAM = """
import importlib.util, runpy, sys
folder = sys.argv.pop(1)
sys.path[:] = [path for path in sys.path if path]
if importlib.util.find_spec("numpy") is None:
    sys.exit("numpy is not installed")
spec = importlib.util.spec_from_file_location(
    "boneage_trainer", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["boneage_trainer"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["boneage_trainer"])
runpy.run_module("boneage_trainer.evaluation.predictions", run_name="__main__", alter_sys=True)
"""
"""Runs this installation's trainer module in any interpreter, with that interpreter's own packages."""


@dataclass(frozen=True, slots=True)
class RunPair:
    """A run's absolute errors against those of the first run, image by image; below zero the run is better.

    `n` of its `own` and of the first's `firsts` test images are in both; `relabelled` more have another label in one
    run and do not count. All None where nothing could be computed; `why` then says why.
    """

    run_id: str
    n: int | None = None
    own: int | None = None
    firsts: int | None = None
    relabelled: int | None = None
    difference_months: float | None = None
    ci95_months: tuple[float, ...] | None = None
    improved_share: float | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        if self.ci95_months is None:
            return self.why or "too few images"
        low, high = self.ci95_months
        return "better" if high < 0 else "worse" if low > 0 else "no significant difference"


@dataclass(frozen=True, slots=True)
class ComputedMetrics:
    """What the trainer computed: evaluations by run folder, and pairs; `problem` says why it could not."""

    evaluations: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    pairs: tuple[RunPair, ...] = ()
    problem: str = ""


def lacks_metrics(folder: RunFolder, sets: Iterable[str] = SETS, keys: Iterable[str] = SECTIONS) -> bool:
    """Whether a set in the predictions of `folder` lacks one of `keys` in its ``evaluation.json``.

    Raises:
        ContractError: ``evaluation.json`` is not JSON.
    """
    if not folder.predictions.is_file():
        return False
    predictions = folder.predictions.read_text(encoding="utf-8")
    evaluated = section(read_object(folder.evaluation).get("sets"))
    present = (name for name in sets if f",{name}," in predictions)
    return any(not set(keys) <= section(evaluated.get(name)).keys() for name in present)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty where there is no file."""
    return parse_object(path.read_text(encoding="utf-8"), path.name) if path.is_file() else {}


def compute_metrics(
    python: str, evaluate: Sequence[RunFolder], compare: Mapping[str, RunFolder] | None = None
) -> ComputedMetrics:
    """Evaluates the folders `evaluate`, and compares the runs `compare` (folders by run) with the first of them.

    `python` is the interpreter that trains. Nothing is raised: a report without these metrics is still a report.
    """
    others = list(compare or {})[1:]
    if not evaluate and not others:
        return ComputedMetrics()
    paths = {"--evaluate": [folder.root for folder in evaluate],
             "--compare": [folder.root for folder in (compare or {}).values()] if others else []}  # fmt: skip
    arguments = [str(part) for option, roots in paths.items() if roots for part in (option, *map(Path.absolute, roots))]
    try:
        document = _run_trainer(python, arguments)
        evaluations = list(map(section, document["evaluations"]))
        pairs = [_parse_pair(run_id, section(raw)) for run_id, raw in zip(others, document["pairs"], strict=True)]
        return ComputedMetrics(dict(zip(paths["--evaluate"], evaluations, strict=True)), tuple(pairs))
    except _Failed as failure:
        problem = str(failure)
    except (ContractError, KeyError, TypeError, ValueError):
        problem = f"{python} printed no metrics. Check: targets.local.python"
    return ComputedMetrics(pairs=tuple(RunPair(run_id, why="not computed") for run_id in others), problem=problem)


class _Failed(Exception):
    """The trainer's module did not run; the message ends in what to do."""


def _run_trainer(python: str, arguments: Sequence[str]) -> dict[str, Any]:
    trainer = str(Path(boneage_trainer.__file__).parent)
    # More threads would only spin: the arrays are small.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run([python, "-c", _PROGRAM, trainer, *arguments], capture_output=True, text=True,
                              encoding="utf-8", timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
                              env=environment)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Failed(f"{python} cannot be used: {error}. Set: targets.local.python") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        if reason != "numpy is not installed":
            raise _Failed(f"{python}: {reason}. Check: targets.local.python")
        install = "pip install 'boneagectl[data]'" if python == sys.executable else f"{python} -m pip install numpy"
        raise _Failed(f"numpy is not installed in {python}. Run: {install}")
    if len(done.stdout) > _MAX_BYTES:
        raise _Failed(f"{python} printed {len(done.stdout)} bytes. Check: targets.local.python")
    return parse_object((done.stdout.splitlines() or [""])[-1], "metrics")


def _parse_pair(run_id: str, raw: Mapping[str, Any]) -> RunPair:
    n, own, firsts, relabelled = (int(raw[key]) for key in ("n", "own", "firsts", "relabelled"))
    return RunPair(
        run_id, n, own, firsts, relabelled, number(raw.get("difference_months")), numbers(raw.get("ci95_months"), 2),
        number(raw.get("improved_share")), str(raw.get("why") or ""),
    )  # fmt: skip


def fill_missing(evaluation: Mapping[str, Any], computed: Mapping[str, Any]) -> dict[str, Any]:
    """`evaluation` with what it lacks of its sets and parts; what it has is not replaced."""
    sets, parts = dict(section(evaluation.get("sets"))), dict(section(evaluation.get("parts")))
    for name, metrics in section(computed.get("sets")).items():
        known = {key: value for key, value in section(sets.get(name)).items() if value is not None}
        sets[name] = {**section(metrics), **known}
    for name, part in section(computed.get("parts")).items():
        parts.setdefault(name, part)
    return {**evaluation, **{key: value for key, value in (("sets", sets), ("parts", parts)) if value}}
