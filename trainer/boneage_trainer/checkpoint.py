"""Checkpoints: every variable and everything else a next leg needs, in one file without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import ContractError, write_atomic

_NOTES = "notes"


def save(path: Path, variables: Sequence[Any], notes: dict[str, Any]) -> None:
    """Writes all `variables` (weights, optimizer, averages, random state) and JSON `notes`, atomically."""
    arrays: dict[str, Any] = {f"v{number:04d}": np.asarray(variable) for number, variable in enumerate(variables)}
    arrays[_NOTES] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def load(path: Path, variables: Sequence[Any] | None = None) -> dict[str, Any]:
    """Returns the notes and, where given, fills `variables`; the file's own checksums are verified.

    Raises:
        ContractError: the file is torn, or was written by another network.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            notes: dict[str, Any] = json.loads(archive[_NOTES].tobytes())
            if variables is not None:
                _fill(variables, [archive[name] for name in sorted(archive.files) if name != _NOTES], path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ContractError(f"checkpoint {path} cannot be read: {error}") from None
    return notes


def _fill(variables: Sequence[Any], values: list[Any], path: Path) -> None:
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ContractError(f"checkpoint {path} belongs to another network")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
