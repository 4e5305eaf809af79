"""The one printer: data to stdout, messages to stderr; `--json` and `--quiet` are applied here."""

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
    """What `report` writes. Here, because the command line needs it before it imports the report package."""

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
    """`json` prints data as JSON, and nothing else to stdout; `quiet` prints only data and errors."""

    json: bool = False
    quiet: bool = False

    def data(self, value: Any, text: str) -> None:
        """Prints the result of a command: `value` as JSON, or `text`."""
        print(_to_json(value, indent=2) if self.json else text, flush=True)

    def line(self, value: Any, text: str) -> None:
        """Prints one of several results on a line of its own."""
        print(_to_json(value) if self.json else text, flush=True)

    def talk(self, text: str) -> None:
        """Prints a message to stderr, unless `quiet`."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def confirm(self, question: str, yes: bool) -> None:
        """Returns if the answer is yes, or the flag `yes` is set.

        Raises:
            Declined: the answer is no, or stdin is not a terminal.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise Declined(f"{question} Not confirmed: stdin is not a terminal", "add --yes")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Declined("not confirmed; nothing was changed")


class Screen:
    """Lines on the terminal that replace each other; without a terminal, only messages are printed."""

    def __init__(self, printer: Printer) -> None:
        self._printer, self._height = printer, 0
        self.is_live = not (printer.json or printer.quiet) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def draw(self, lines: Sequence[str], is_last: bool) -> None:
        """Replaces the lines drawn before. Lines are cut to the terminal's width: a wrapped one would count as two."""
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._height}A" if self._height else ""
        shown = "".join(f"\x1b[2K{line[:width]}\n" for line in lines)
        print(f"{up}\r\x1b[J{shown}", end="", file=sys.stderr, flush=True)
        self._height = 0 if is_last else len(lines)

    def update(self, text: str) -> None:
        """Draws one line in place of the last; without a terminal, prints a line each time."""
        if self.is_live:
            self.draw([text], is_last=False)
        else:
            self._printer.talk(text)

    def talk(self, text: str) -> None:
        """Prints a message below what is drawn, which then stays."""
        self._height = 0
        self._printer.talk(text)


def _to_json(value: Any, indent: int | None = None) -> str:
    from boneagectl.models import as_json

    return json.dumps(as_json(value), indent=indent)


def print_error(error: BoneagectlError) -> None:
    """Prints what failed and the next step to stderr."""
    mark = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else "error:"
    print(f"{mark} {error.message}", file=sys.stderr)
    if error.next_step:
        print(f"  next: {error.next_step}", file=sys.stderr)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns; columns of numbers are right-aligned."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    for column in range(len(headings)):
        width = max(len(line[column]) for line in lines)
        is_numeric = bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        for line in lines:
            line[column] = line[column].rjust(width) if is_numeric else line[column].ljust(width)
    return "\n".join("  ".join(line).rstrip() for line in lines)
