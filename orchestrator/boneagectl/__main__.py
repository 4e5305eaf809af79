"""``boneagectl`` and ``python -m boneagectl``: the one place where errors become words and exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import boneage_trainer
from boneagectl.errors import BoneagectlError, MachineError, UsageError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code (docs/guide.md)."""
    gc.set_threshold(50_000)  # modules stay: looking for garbage after every 700 new objects of theirs costs 4 ms
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    if arguments == ["--version"]:  # needs no parser, so it takes no time
        print(f"boneagectl {boneage_trainer.__version__}")
        return 0
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:  # before typer, which turns it into an exit, has begun
        return _interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error)


def _dispatch(arguments: list[str]) -> int:
    from boneagectl.cli.app import app

    try:
        app(arguments, prog_name="boneagectl")
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
        return _interrupted() if code == INTERRUPTED else code
    return 0


def _interrupted() -> int:
    print("\ninterrupted; a training that was submitted goes on", file=sys.stderr)
    return INTERRUPTED


def _report(error: Exception) -> int:
    """Prints an error of a known kind and returns its exit code; raises any other again."""
    from boneagectl.output import print_error

    known = _translate(error)
    print_error(known)
    return known.exit_code


def _translate(error: Exception) -> BoneagectlError:
    from boneage_trainer.contract import ContractError

    if isinstance(error, BoneagectlError):
        return error
    if isinstance(error, ContractError):
        return UsageError(str(error))
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return MachineError(f"{place}{error.strerror or error}", "boneagectl doctor shows disk and folders")
    raise error


if __name__ == "__main__":
    main()
