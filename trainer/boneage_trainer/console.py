"""What the trainer's commands share: results to stdout, all else to stderr, one line for an error.

Exit codes: 0 done, 2 the arguments or the dataset are wrong, 3 the disk or a file failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from boneage_trainer.contract import ContractError
from boneage_trainer.stderr_filter import quiet_tensorflow


def run_command(command: Callable[[], None]) -> int:
    """Runs `command` and turns what it raises into a message and an exit code."""
    try:
        command()
    except ContractError as error:
        code, message = 2, str(error)
    except OSError as error:
        code, message = 3, str(error)
        if error.filename is not None:
            path = Path(os.fsdecode(error.filename))
            message = f"{path}: {error.strerror} ({free_bytes(path) / 1e6:,.0f} MB free there)"
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    else:
        return 0
    print(f"error: {message}", file=sys.stderr)
    return code


def run_keras_command(command: Callable[[], None]) -> int:
    """As `run_command`, with the TensorFlow backend, and without the log lines of its libraries."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with quiet_tensorflow():
        return run_command(command)


def free_bytes(path: Path) -> int:
    """Free space on the file system of `path`, which need not exist yet."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def attach_path(path: Path) -> Iterator[None]:
    """Adds `path` to an OSError that names no file, as writes to an open one raise it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def print_status(text: str) -> None:
    """Prints a line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_result(result: Mapping[str, Any], text: str, as_json: bool) -> None:
    """Prints the command's result on stdout: one JSON object, or `text` for people."""
    print(json.dumps(result, sort_keys=True, allow_nan=False) if as_json else text, flush=True)


def int_in_range(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must lie in {low}..{high}, not {value}")
        return value

    return parse


class ProgressLine:
    """Shows the progress of a count: one updating line on a terminal, a line now and then elsewhere.

    `done` is what an earlier process had finished; it counts towards the percentage, not towards the rate.
    """

    def __init__(self, what: str, total: int, done: int = 0, stream: TextIO | None = None) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._started_s = self._shown_s = time.monotonic()
        self._shown = done

    def add(self, count: int) -> None:
        self._done += count
        now_s = time.monotonic()
        waited_s = now_s - self._shown_s
        if self._live:
            is_due = waited_s >= 0.1
        else:
            is_due = waited_s >= 5 or (waited_s >= 1 and self._done - self._shown >= self._total / 10)
        if is_due or self._done >= self._total:
            self._shown, self._shown_s = self._done, now_s
            # Padded with blanks, to overwrite a longer line before it.
            print(f"\r{self._line(now_s):<76}" if self._live else self._line(now_s), end="", file=self._stream)
            print("" if self._live and self._done < self._total else "\n", end="", file=self._stream, flush=True)

    def _line(self, now_s: float) -> str:
        elapsed_s = max(now_s - self._started_s, 1e-9)
        per_s = (self._done - self._first) / elapsed_s
        left_s = round((self._total - self._done) / per_s) if per_s else 0
        unfinished = self._done < self._total
        share = 100 * self._done / self._total
        left = f", {left_s // 60}:{left_s % 60:02} left" if unfinished else f" in {elapsed_s:.1f} s"
        return f"{self._what} {self._done:,}/{self._total:,} ({share:.0f} %), {per_s:,.0f}/s{left}"
