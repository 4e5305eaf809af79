"""Executes the generated script on this machine, in folders like Kaggle's, on synthetic hands."""

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
    "whether Kaggle provides a GPU that TensorFlow can use there",
    "whether the real dataset can be attached, and where it is mounted",
    "the quota, the session limit and the speed",
    "the versions in Kaggle's image; here it ran with those of this machine",
)


def rehearse(rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
    """One finding per step; the script's own output goes to standard error.

    Raises:
        MachineError: the script failed, or its outputs are not as expected.
    """
    metadata, _ = render.read_kernel_folder(rendered)
    root, dataset = workspace / "kaggle", metadata["dataset_sources"][0]
    for name in ("input", "working", "tmp"):
        (root / name).mkdir(parents=True)
    rehearsal.synthesize_images(root / "input" / "datasets" / dataset, python)
    for folder in (rendered / render.CODE, rendered / render.RESUME):  # would be uploaded as datasets
        if folder.exists():
            ref = parse_object((folder / datasets.METADATA).read_text(), datasets.METADATA)["id"]
            shutil.copytree(folder, root / "input" / "datasets" / ref)
    yield Finding("ok", "data", f"{rehearsal.IMAGES} synthetic hands in place of {dataset}")
    start_s = time.monotonic()
    log = _run_script(rendered / metadata["code_file"], root, python)
    duration = units.format_duration(time.monotonic() - start_s)
    yield Finding("ok", "script", f"{metadata['code_file']}, as it would be pushed, ran to its end in {duration}")
    yield _check_outputs(root / "working", log, RunFolder(workspace / "collected"))
    for what in UNCHECKED:
        yield Finding("warn", "not checked", what)


def _run_script(script: Path, root: Path, python: str) -> KernelLog:
    """The script alone: it must contain all its code."""
    kaggle = {"BONEAGE_KAGGLE_ROOT": str(root), "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    log, environment = KernelLog(), {**rehearsal.clean_environment(), **rehearsal.ENVIRONMENT, **kaggle}
    try:
        for line in rehearsal.run_program([python, "-u", str(script.absolute())], root / "working", environment):
            log.add_line(line, {})
    except MachineError as error:
        reason = log.state.get("reason") or error.message
        raise MachineError(f"the script failed: {reason}", error.next_step) from None
    return log


def _check_outputs(working: Path, log: KernelLog, dest: RunFolder) -> Finding:
    """The outputs, collected and verified as those from Kaggle."""
    names = sorted(path.name for path in working.iterdir())
    if names != [outputs.ZIP]:
        raise MachineError(f"the script must leave only {outputs.ZIP}, it left {', '.join(names) or 'nothing'}")
    size = units.format_bytes((working / outputs.ZIP).stat().st_size)
    collected = outputs.unpack_outputs(working / outputs.ZIP, log, dest)
    state = parse_object(dest.state.read_text(), dest.state.name)
    if state["state"] != "complete" or log.state.get("state") != "complete":
        raise MachineError(f"the rehearsal ended as {state['state']}: {state['reason']}")
    return Finding("ok", "outputs", f"{outputs.ZIP}, {size}: {len(collected.sha256)} files match their manifest")
