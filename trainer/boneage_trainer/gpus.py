"""Which GPUs a rented machine really has, asked before anything costs time."""

from __future__ import annotations

import shutil
import subprocess

from boneage_trainer.errors import ContractError


class NoGpu(ContractError):
    """The machine that was rented has not the GPU that was asked for."""


def check_gpus(expected: int, place: str, advice: str) -> None:
    """Prints which GPUs this machine has, and a warning where they are fewer than `expected`.

    `place` is who rents it out, `advice` what to do where it has none.

    Raises:
        NoGpu: it has none.
    """
    found, said = _gpus()
    if not found:
        raise NoGpu(f"{place} gave no GPU: {said}. {advice}")
    for line in found:
        print(line.partition(" (UUID")[0], flush=True)
    if len(found) < expected:
        print(f"warning: {expected} GPUs were expected, {len(found)} given; the training takes longer", flush=True)


def _gpus() -> tuple[list[str], str]:
    """The lines of ``nvidia-smi -L``, one a GPU, and what else it said."""
    program = shutil.which("nvidia-smi")
    if not program:
        return [], "there is no nvidia-smi"
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi does not answer ({error})"
    said = f"{done.stdout} {done.stderr}".strip()
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")], f"nvidia-smi says {said!r}"
