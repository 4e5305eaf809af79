"""What can go wrong, named by what the caller does next.

BoneagectlError          exit 1   anything below; never raised itself
├── UsageError           exit 2   the command, config or input is wrong: correct it
├── MachineError         exit 3   this machine is in the way: disk, folder, missing package, ledger file
├── RunFailed            exit 4   the training failed or its process is gone: read its log, resume it
├── LimitRefused         exit 5   a cap, quota or limit forbids it: raise it or ask for less
├── NotYet               exit 6   the run is not that far: wait, or resume it
└── Declined             exit 7   a question was answered with no, or could not be asked
"""

from __future__ import annotations


class BoneagectlError(Exception):
    """`message` says what failed, with the value, and why; `next_step` is what to do or type next."""

    exit_code = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class UsageError(BoneagectlError):
    exit_code = 2


class MachineError(BoneagectlError):
    exit_code = 3


class Unreachable(MachineError):
    """The other side gave no answer, after several tries; asking again later may help."""


class InDoubt(MachineError):
    """A leg was asked for and no answer came: it may or may not come to be."""


class RunFailed(BoneagectlError):
    exit_code = 4


class LimitRefused(BoneagectlError):
    exit_code = 5


class NotYet(BoneagectlError):
    exit_code = 6


class Declined(BoneagectlError):
    exit_code = 7
