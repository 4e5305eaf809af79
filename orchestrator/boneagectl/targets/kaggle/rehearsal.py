"""Runs the very script that would be pushed, here, in a tree like Kaggle's, on synthetic hands."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from boneage_trainer.contract import RunFolder, parse_object
from boneagectl import units
from boneagectl.errors import MachineError
from boneagectl.models import Finding
from boneagectl.targets import rehearsal
from boneagectl.targets.kaggle import datasets, outputs, render
from boneagectl.targets.kaggle.status import KernelLog

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
    metadata, _ = render.read_kernel_folder(rendered)
    root = place / "kaggle"
    for name in ("input", "working", "tmp"):
        (root / name).mkdir(parents=True)
    rehearsal.synthesize_images(root / "input" / "datasets" / metadata["dataset_sources"][0], python)
    _attach(rendered, root / "input")
    yield Finding("ok", "data", f"{rehearsal.IMAGES} synthetic hands lie where {metadata['dataset_sources'][0]} would")
    began_s = time.monotonic()
    log = _run(rendered / metadata["code_file"], root, python)
    took = units.format_duration(time.monotonic() - began_s)
    yield Finding("ok", "script", f"{metadata['code_file']}, as it would be pushed, ran to its end in {took}")
    yield _brought(root / "working", log, RunFolder(place / "brought"))
    for what in UNCHECKED:
        yield Finding("warn", "not checked", what)


def _attach(rendered: Path, inputs: Path) -> None:
    """Puts what would be pushed as data sets of their own where they would be mounted."""
    for folder in (rendered / render.CODE, rendered / render.RESUME):
        if folder.exists():
            ref = parse_object((folder / datasets.METADATA).read_text(), datasets.METADATA)["id"]
            shutil.copytree(folder, inputs / "datasets" / ref)


def _run(script: Path, root: Path, python: str) -> KernelLog:
    """The script alone: it must bring all its code with it."""
    kaggle = {"BONEAGE_KAGGLE_ROOT": str(root), "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    log, environment = KernelLog(), {**rehearsal.clean_environment(), **rehearsal.ENVIRONMENT, **kaggle}
    try:
        for line in rehearsal.run_program([python, "-u", str(script.absolute())], root / "working", environment):
            log.add_line(line, {})
    except MachineError as error:
        reason = log.state.get("reason") or error.message
        raise MachineError(f"the script failed: {reason}", error.next_step) from None
    return log


def _brought(working: Path, log: KernelLog, dest: RunFolder) -> Finding:
    """What it left, brought back and checked as from Kaggle."""
    left = sorted(path.name for path in working.iterdir())
    if left != [outputs.ZIP]:
        raise MachineError(f"the script should leave {outputs.ZIP} alone, not {', '.join(left) or 'nothing'}")
    size = units.format_bytes((working / outputs.ZIP).stat().st_size)
    found = outputs.unpack_outputs(working / outputs.ZIP, log, dest)
    state = parse_object(dest.state.read_text(), dest.state.name)
    if state["state"] != "complete" or log.state.get("state") != "complete":
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason']}")
    return Finding("ok", "outputs", f"{outputs.ZIP}, {size}: {len(found.sha256)} files, each as its own list says")
