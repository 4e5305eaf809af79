"""What Colab provides to a notebook: Drive, secrets, downloads; and errors that end a cell without a traceback.

Google's package can fail with many types of exceptions; none of them leaves this module.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from boneage_trainer.contract import ContractError


class CellStopped(ContractError):
    """Ends a cell, and with it "Run all"; the message says what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"STOPPED: {self}"]


class ColabSecret(NamedTuple):
    """A value from Colab's secrets; or, in `missing`, why there is none."""

    value: str
    missing: str

    def __repr__(self) -> str:
        return f"ColabSecret(missing={self.missing!r})"


def mount_drive(point: Path, force: bool = False) -> None:
    """Mounts the user's Drive at `point`; with `force` also where Colab considers it mounted.

    Raises:
        OSError: Google or the user did not allow it.
    """
    try:
        from google.colab import drive

        drive.mount(str(point), force_remount=force)
    except Exception as error:
        raise OSError(f"Drive was not mounted: {_error_text(error)}") from None


def flush_drive() -> None:
    """Waits until everything is written to Drive, and unmounts it.

    Raises:
        OSError: it was not written.
    """
    try:
        from google.colab import drive

        drive.flush_and_unmount()
    except Exception as error:
        raise OSError(f"Drive was not flushed: {_error_text(error)}") from None


def release_runtime() -> None:
    """Releases this runtime, with everything on it; ignores failures, which no one would see."""
    with suppress(Exception):
        from google.colab import runtime

        runtime.unassign()


def read_secret(name: str) -> ColabSecret:
    """The secret `name`, which is never printed or stored."""
    try:
        from google.colab import userdata

        value = userdata.get(name)
    except Exception as error:
        kind = type(error).__name__
        reasons = {
            "SecretNotFoundError": f"there is no secret {name}",
            "NotebookAccessError": f"this notebook may not read the secret {name}: switch on its notebook access",
            "TimeoutException": f"Colab did not return the secret {name}: keep this page open and run the cell again",
        }
        return ColabSecret("", reasons.get(kind, f"the secret {name} could not be read ({kind})"))
    return ColabSecret(value or "", "" if value else f"the secret {name} is empty")


def offer_download(path: Path) -> str:
    """Makes the browser download `path`; returns why it did not, or ""."""
    try:
        from google.colab import files

        files.download(str(path))
    except Exception as error:
        return _error_text(error)
    return ""


def _error_text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
