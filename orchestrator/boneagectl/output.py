"""The one printer. Data goes to stdout, talk to stderr; `--json` and `--quiet` are decided here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from boneagectl.errors import BoneagectlError, Declined


class Format(StrEnum):
    """What `report` writes. It lives here because typer reads it on every start: reporting.py costs more."""

    HTML = "html"
    JSON = "json"
    CSV = "csv"


class ComparisonFormat(StrEnum):
    """What `compare` writes."""

    TEXT = "text"
    HTML = "html"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    LATEX = "latex"


@dataclass(frozen=True, slots=True)
class Printer:
    """`json` prints data as JSON and nothing else on stdout; `quiet` says nothing that is not data."""

    json: bool = False
    quiet: bool = False

    def data(self, value: Any, text: str) -> None:
        """The answer of a command: `value` as JSON, or `text` for people."""
        print(_to_json(value, indent=2) if self.json else text, flush=True)

    def line(self, value: Any, text: str) -> None:
        """One of several answers, a line each, as they come."""
        print(_to_json(value) if self.json else text, flush=True)

    def talk(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def confirm(self, question: str, yes: bool) -> None:
        """Returns on yes; without a terminal, only `yes` (the flag) counts.

        Raises:
            Declined: the answer is no, or nobody can be asked.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise Declined(f"{question} Nobody can be asked here.", "add --yes to answer in advance")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Declined("not confirmed; nothing was done")


class Screen:
    """Lines on the terminal that are drawn over each time; where there is none, only what is talked is printed."""

    def __init__(self, printer: Printer) -> None:
        self._printer, self._height = printer, 0
        self.is_live = not (printer.json or printer.quiet) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def draw(self, lines: Sequence[str], is_last: bool) -> None:
        """Cut to the terminal's width: a line that wraps would be two, and drawn over by half."""
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._height}A" if self._height else ""
        shown = "".join(f"\x1b[2K{line[:width]}\n" for line in lines)
        print(f"{up}\r\x1b[J{shown}", end="", file=sys.stderr, flush=True)
        self._height = 0 if is_last else len(lines)

    def update(self, text: str) -> None:
        """A line that replaces itself; where there is no terminal, a line each time."""
        if self.is_live:
            self.draw([text], is_last=False)
        else:
            self._printer.talk(text)

    def talk(self, text: str) -> None:
        """Below what is drawn, which then stays as it is."""
        self._height = 0
        self._printer.talk(text)


def _to_json(value: Any, indent: int | None = None) -> str:
    from boneagectl.models import as_json

    return json.dumps(as_json(value), indent=indent)


def print_error(error: BoneagectlError) -> None:
    """What failed, and the next step, on stderr."""
    mark = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else "error:"
    print(f"{mark} {error.message}", file=sys.stderr)
    if error.next_step:
        print(f"  next: {error.next_step}", file=sys.stderr)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(headings))]
    lines = [_aligned(headings, widths, right), *(_aligned(row, widths, right) for row in cells)]
    return "\n".join(lines)


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if flag else cell.ljust(width) for cell, width, flag in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()
