"""``boneagectl`` and ``python -m boneagectl``: the one place where errors become messages and exit codes."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence

import boneage_trainer
from boneagectl.errors import BoneagectlError, MachineError, UsageError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code (docs/guide.md)."""
    gc.set_threshold(50_000)  # modules stay loaded: a collection after every 700 of their objects costs 4 ms in all
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path or a sign that the terminal cannot show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    if arguments == ["--version"]:  # needs no parser
        print(f"boneagectl {boneage_trainer.__version__}")
        return 0
    try:
        return _run_command(arguments)
    except KeyboardInterrupt:  # before typer, which turns it into an exit, has started
        return _report_interrupt()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from boneagectl.output import print_error

        known = _known_error(error)
        print_error(known)
        return known.exit_code


def _run_command(arguments: list[str]) -> int:
    from boneagectl.cli.app import app

    try:
        app(arguments, prog_name="boneagectl")
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
        return _report_interrupt() if code == INTERRUPTED else code
    return 0


def _report_interrupt() -> int:
    print("\ninterrupted; the submitted run continues", file=sys.stderr)
    return INTERRUPTED


def _known_error(error: Exception) -> BoneagectlError:
    """`error` as one of the project's own; raises any other again."""
    from boneage_trainer.contract import ContractError

    if isinstance(error, BoneagectlError):
        return error
    if isinstance(error, ContractError):
        return UsageError(str(error))
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        return MachineError(f"{path}{error.strerror or error}", "boneagectl doctor shows disk space and folders")
    raise error


if __name__ == "__main__":
    main()
