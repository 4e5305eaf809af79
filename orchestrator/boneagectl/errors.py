"""What can go wrong, named by what the caller does next.

BoneagectlError          exit 1    anything below; never raised itself
├── UsageError           exit 2    the command, a setting or an input is wrong: correct it
├── MachineError         exit 3    this machine: disk, folder, missing package, ledger file
├── RunFailed            exit 4    the run failed or its process is gone: read its log, resume it
├── LimitRefused         exit 5    a cap, quota or time limit forbids it: ask for less, or change the limit
├── NotYet               exit 6    the run is not that far: wait, or resume it
├── Declined             exit 7    a question was answered with no, or could not be asked
└── RemoteError                    the provider; never raised itself
    ├── NotSignedIn      exit 8    no valid sign-in: sign in with the command that the message names
    ├── ProviderRefused  exit 9    the provider answered no: read its reason
    │   └── NotFound     exit 9    the provider has no such object, or it belongs to another account
    ├── Unreachable      exit 10   no answer after several attempts: try again later
    └── SubmitUncertain  exit 11   a leg was requested and no answer came: it may or may not exist
"""

from __future__ import annotations


class BoneagectlError(Exception):
    """`message` says what failed, with the value, and why; `next_step` is the command to run or what to set."""

    exit_code = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class UsageError(BoneagectlError):
    exit_code = 2


class MachineError(BoneagectlError):
    exit_code = 3


class RunFailed(BoneagectlError):
    exit_code = 4


class LimitRefused(BoneagectlError):
    exit_code = 5


class NotYet(BoneagectlError):
    exit_code = 6


class Declined(BoneagectlError):
    exit_code = 7


class RemoteError(BoneagectlError):
    """Everything that a provider or the way to it can cause."""


class NotSignedIn(RemoteError):
    exit_code = 8


class ProviderRefused(RemoteError):
    exit_code = 9


class NotFound(ProviderRefused):
    """Kaggle answers the same for an object that does not exist and for one of another account."""


class Unreachable(RemoteError):
    exit_code = 10


class SubmitUncertain(RemoteError):
    """The reservation stands until the leg is found or certainly does not exist."""

    exit_code = 11
