"""Checkpoints: every variable and everything else a next leg needs, in one file without pickle."""

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

from boneage_trainer.contract import open_atomic
from boneage_trainer.errors import ContractError

_NOTES = "notes"


def copy_values(variables: Sequence[Any]) -> list[Any]:
    """Copies in host memory, which training on does not touch."""
    return [np.array(variable) for variable in variables]


def save_checkpoint(path: Path, values: Sequence[Any], notes: dict[str, Any]) -> None:
    """Writes all `values` (weights, optimizer, averages, random state) and JSON `notes`, atomically."""
    arrays: dict[str, Any] = {f"v{number:04d}": value for number, value in enumerate(values)}
    arrays[_NOTES] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    with open_atomic(path) as stream:
        np.savez(stream, **arrays)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes alone, whatever the size of the rest; raises ContractError where the file is torn or missing."""
    with _opened(path) as archive:
        return _notes(archive)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The notes and the values; the file's own checksums are verified.

    Raises:
        ContractError: the file is torn or missing.
    """
    with _opened(path) as archive:
        return _notes(archive), [archive[name] for name in sorted(archive.files) if name != _NOTES]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The archive, whose entries are read and checked one by one when asked for."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ContractError(f"checkpoint {path} cannot be read: {error}") from None


def _notes(archive: Any) -> dict[str, Any]:
    notes: dict[str, Any] = json.loads(archive[_NOTES].tobytes())
    return notes


def assign_values(variables: Sequence[Any], values: Sequence[Any], path: Path) -> None:
    """Puts the values of `path` into `variables`; raises ContractError where they are another network's."""
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ContractError(f"checkpoint {path} belongs to another network")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


# == saver: Writes what an epoch leaves in the background, in order, and never lets a disk end a training unheard.


class BackgroundWriter:
    """One thread that does one job at a time; a job that fails with OSError is told and noted, not raised."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        """Why the newest job could not be done, or None where it could."""
        self._crash: BaseException | None = None
        self._jobs: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue(maxsize=1)
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, what: str, job: Callable[[], None]) -> None:
        """Has `job` done soon; waits until the one before is done, so that at most one epoch is under way."""
        self.drain()
        self._jobs.put((what, job))

    def drain(self) -> None:
        """Returns when everything is done; raises what was no disk's fault."""
        self._jobs.join()
        if self._crash:
            crash, self._crash = self._crash, None
            raise crash

    def _work(self) -> None:
        while True:
            what, job = self._jobs.get()
            try:
                job()
                self.error = None
            except OSError as error:
                self.error = error
                print(f"warning: {what} could not be saved: {error}; training goes on, the next epoch tries again",
                      file=sys.stderr, flush=True)  # fmt: skip
            except BaseException as error:
                self._crash = error
            finally:
                self._jobs.task_done()
