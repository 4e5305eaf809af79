"""Runs the very script that would be pushed, here, in a tree like Kaggle's, on synthetic hands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from boneage_trainer.contract import RunFolder, parse_object
from boneagectl import units
from boneagectl.errors import MachineError
from boneagectl.records import Finding
from boneagectl.targets.kaggle import outputs, rendering
from boneagectl.targets.kaggle.log import Log

_IMAGES, _SIZE_PX = 32, 96
_STDERR = 2
UNCHECKED = (
    "whether Kaggle gives a GPU, and TensorFlow there can use it",
    "whether the real data set can be attached, and how it is mounted today",
    "the quota and the session limit, and how fast it is",
    "the versions in Kaggle's image; here it ran with those of this machine",
)


def rehearse(rendered: Path, place: Path, python: str) -> Iterator[Finding]:
    """What held, one by one; the script's own output goes to standard error.

    Raises:
        MachineError: the script failed, or left something else than it should.
    """
    metadata, _ = rendering.read(rendered)
    root = place / "kaggle"
    for name in ("input", "working", "tmp"):
        (root / name).mkdir(parents=True)
    _draw(root / "input" / "datasets" / metadata["dataset_sources"][0], python)
    _attach_code(rendered, root / "input", metadata)
    yield Finding("ok", "data", f"{_IMAGES} synthetic hands lie where {metadata['dataset_sources'][0]} would")
    began_s = time.monotonic()
    log = _run(rendered / metadata["code_file"], root, python)
    took = units.format_duration(time.monotonic() - began_s)
    yield Finding("ok", "script", f"{metadata['code_file']}, as it would be pushed, ran to its end in {took}")
    yield _brought(root / "working", log, RunFolder(place / "brought"))
    for what in UNCHECKED:
        yield Finding("warn", "not checked", what)


def _draw(tree: Path, python: str) -> None:
    size = ("--n", str(_IMAGES), "--size-px", str(_SIZE_PX))
    done = subprocess.run(
        [python, "-m", "boneage_trainer.synth", str(tree), *size], stdout=_STDERR, check=False, env=_environment()
    )
    if done.returncode:
        raise MachineError(f"synthetic hands could not be drawn with {python}", "pip install 'boneagectl[train]'")


def _environment(**more: str) -> dict[str, str]:
    """This environment, with the trainer's package findable where this one was found."""
    import boneage_trainer

    source = str(Path(boneage_trainer.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]), **more}


def _attach_code(rendered: Path, inputs: Path, metadata: dict[str, list[str]]) -> None:
    code = rendered / rendering.CODE
    if code.exists():
        place = inputs / "datasets" / metadata["dataset_sources"][-1]
        place.mkdir(parents=True)
        (place / rendering.BUNDLE).write_bytes((code / rendering.BUNDLE).read_bytes())


def _run(script: Path, root: Path, python: str) -> Log:
    """Without PYTHONPATH: the script must bring all its code with it."""
    kaggle = {"BONEAGE_KAGGLE_ROOT": str(root), "BONEAGE_REHEARSAL": "1", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    log = Log()
    with subprocess.Popen(
        [python, "-u", str(script.absolute())],
        cwd=root / "working",
        env={**environment, **kaggle},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            print(f"  {line}", end="", file=sys.stderr, flush=True)
            log.hear(line.rstrip("\n"), {})
    if process.returncode:
        reason = log.state.get("reason") or (log.lines[-1] if log.lines else "it printed nothing")
        raise MachineError(f"the script ended with {process.returncode}: {reason}", "nothing was pushed or booked")
    return log


def _brought(working: Path, log: Log, dest: RunFolder) -> Finding:
    """What it left, brought back and checked as from Kaggle."""
    left = sorted(path.name for path in working.iterdir())
    if left != [outputs.ZIP]:
        raise MachineError(f"the script should leave {outputs.ZIP} alone, not {', '.join(left) or 'nothing'}")
    size = units.format_bytes((working / outputs.ZIP).stat().st_size)
    found = outputs.unpacked(working / outputs.ZIP, log, dest)
    state = parse_object(dest.state.read_text(), dest.state.name)
    if state["state"] != "complete" or log.state.get("state") != "complete":
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason']}")
    return Finding("ok", "outputs", f"{outputs.ZIP}, {size}: {len(found.sha256)} files, each as its own list says")
