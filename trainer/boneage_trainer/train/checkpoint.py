"""Checkpoints: every variable and everything else a next leg needs, in one file without pickle, written aside.

`BackgroundWriter` writes them while the next epoch is computed, and reports a disk that fails without ending the run.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import ContractError, open_atomic

_NOTES = "notes"


def copy_values(variables: Sequence[Any]) -> list[Any]:
    """Copies in host memory, which further training does not change."""
    return [np.array(variable) for variable in variables]


def save_checkpoint(path: Path, values: Sequence[Any], notes: dict[str, Any]) -> None:
    """Writes all `values` (weights, optimizer, averages, random state) and JSON `notes`, atomically."""
    arrays: dict[str, Any] = {f"v{number:04d}": value for number, value in enumerate(values)}
    arrays[_NOTES] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    with open_atomic(path) as stream:
        np.savez(stream, **arrays)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes alone, whatever the size of the rest; raises ContractError where the file is torn or missing."""
    with _open_checkpoint(path) as archive:
        return _parse_notes(archive)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The notes and the values; the file's own checksums are verified.

    Raises:
        ContractError: the file is torn or missing.
    """
    with _open_checkpoint(path) as archive:
        return _parse_notes(archive), [archive[name] for name in sorted(archive.files) if name != _NOTES]


@contextmanager
def _open_checkpoint(path: Path) -> Iterator[Any]:
    """The archive, whose entries are read and checked one by one on access."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ContractError(f"checkpoint {path} cannot be read: {error}") from None


def _parse_notes(archive: Any) -> dict[str, Any]:
    notes: dict[str, Any] = json.loads(archive[_NOTES].tobytes())
    return notes


def assign_values(variables: Sequence[Any], values: Sequence[Any], path: Path) -> None:
    """Assigns `values`, which were read from `path`; raises ContractError where they are another network's."""
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ContractError(f"checkpoint {path} belongs to another network")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class BackgroundWriter:
    """One thread that runs one task at a time. A task that raises OSError is reported and remembered, not raised."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        """Why the newest task failed, or None where it did not."""
        self._crash: BaseException | None = None
        self._tasks: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue(maxsize=1)
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, what: str, task: Callable[[], None]) -> None:
        """Runs `task` soon; waits until the one before is done, so that at most one epoch is being written."""
        self.wait()
        self._tasks.put((what, task))

    def wait(self) -> None:
        """Returns when every task is done; raises what a task raised other than an OSError."""
        self._tasks.join()
        if self._crash:
            crash, self._crash = self._crash, None
            raise crash

    def _work(self) -> None:
        while True:
            what, task = self._tasks.get()
            try:
                task()
                self.error = None
            except OSError as error:
                self.error = error
                print(f"warning: {what} could not be saved: {error}; training continues, the next epoch tries again",
                      file=sys.stderr, flush=True)  # fmt: skip
            except BaseException as error:
                self._crash = error
            finally:
                self._tasks.task_done()
