"""What Colab itself gives a notebook: Drive, secrets, a download; and how a cell ends with words, not a traceback.

Everything here may fail for reasons of Google's, in many types of exception; none of them is let through.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from boneage_trainer.contract import ContractError


class Stop(ContractError):
    """Ends a cell, and with it "Run all"; the message says what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"STOPPED: {self}"]


class Secret(NamedTuple):
    """A value from Colab's store of secrets; or why there is none, in the user's words."""

    value: str
    missing: str

    def __repr__(self) -> str:
        return f"Secret(missing={self.missing!r})"


def mount(point: Path, again: bool = False) -> None:
    """Mounts the user's Drive at `point`; `again`: also where Colab thinks it is mounted.

    Raises:
        OSError: Google or the user did not allow it.
    """
    try:
        from google.colab import drive

        drive.mount(str(point), force_remount=again)
    except Exception as error:
        raise OSError(f"Drive was not mounted: {_words(error)}") from None


def flush() -> None:
    """Has everything written to Drive by the time it returns, and unmounts it.

    Raises:
        OSError: it was not.
    """
    try:
        from google.colab import drive

        drive.flush_and_unmount()
    except Exception as error:
        raise OSError(f"Drive was not flushed: {_words(error)}") from None


def unassign() -> None:
    """Gives this machine back to Colab, with all that is on it; silent where that fails, as there is nobody to hear."""
    with suppress(Exception):
        from google.colab import runtime

        runtime.unassign()


def secret(name: str) -> Secret:
    """The secret called `name`, never printed and never written anywhere."""
    try:
        from google.colab import userdata

        value = userdata.get(name)
    except Exception as error:
        return Secret("", _why(type(error).__name__, name))
    return Secret(value or "", "" if value else f"the secret {name} is empty")


def _why(kind: str, name: str) -> str:
    if kind == "SecretNotFoundError":
        return f"there is no secret {name}"
    if kind == "NotebookAccessError":
        return f"this notebook may not read the secret {name}: switch on its notebook access"
    if kind == "TimeoutException":
        return f"Colab did not answer when asked for the secret {name}: keep this page open and run the cell again"
    return f"the secret {name} could not be read ({kind})"


def offer(path: Path) -> str:
    """Has the browser download `path`; returns why it did not, or nothing."""
    try:
        from google.colab import files

        files.download(str(path))
    except Exception as error:
        return _words(error)
    return ""


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
