"""Submitting by the official SDK, and nothing else: it uploads the code and knows what a job.yml means."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from boneagectl.errors import MachineError, NotSignedIn, ProviderRefused, RemoteError, SubmitUncertain
from boneagectl.targets.azure.client import LATER, Workspace
from boneagectl.targets.azure.render import JOB

_CLEAR = range(400, 500)
_UNCLEAR = (408, 429)


def create(credential: Any, place: Workspace, rendered: Path) -> None:
    """Creates the job that the folder describes.

    Raises:
        ProviderRefused: Azure refused it. SubmitUncertain: no clear answer came; the job may exist.
    """
    with _speaking(credential, place) as client:
        from azure.ai.ml import load_job

        client.jobs.create_or_update(load_job(rendered / JOB))


def read(rendered: Path) -> Any:
    """The folder's job as the SDK understands it; no network.

    Raises:
        MachineError: it does not take it.
    """
    with _silently():
        from azure.ai.ml import load_job

        try:
            return load_job(rendered / JOB)
        except Exception as error:  # whatever its schemas raise
            raise MachineError(f"azure-ai-ml does not take {JOB}: {_line(error)}") from None


def register(credential: Any, place: Workspace, name: str, pack: Path) -> None:
    """Uploads the folder `pack` as version 1 of the data asset `name`; raises as `create` does.

    On a terminal the SDK shows its own progress.
    """
    with _speaking(credential, place, is_shown=sys.stderr.isatty()) as client:
        from azure.ai.ml.entities import Data

        client.data.create_or_update(Data(name=name, version="1", path=str(pack), type="uri_folder"))


@contextmanager
def _speaking(credential: Any, place: Workspace, is_shown: bool = False) -> Iterator[Any]:
    """The SDK's client; its failures in our words. It prints escape codes even where it is asked to be silent."""
    with _silently(), nullcontext() if is_shown else redirect_stderr(io.StringIO()):
        from azure.ai.ml import MLClient
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            where = (place.subscription, place.resource_group, place.name)
            yield MLClient(credential, *where, show_progress=is_shown)
        except HttpResponseError as error:
            raise _translated(error) from None
        except AzureError as error:
            raise SubmitUncertain(f"no answer from Azure: {_line(error)}", LATER) from None


@contextmanager
def _silently() -> Iterator[None]:
    """Without the SDK's warnings, and its lines about experimental classes, which no level of its loggers silences."""
    was = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise MachineError(f"the azure target needs azure-ai-ml: {error}", "pip install 'boneagectl[azure]'") from None
    finally:
        logging.disable(was)


def _translated(error: Any) -> RemoteError:
    status = error.status_code or 0
    if status in _CLEAR and status not in _UNCLEAR:
        kind, next_step = (
            (NotSignedIn, "az login") if status == 401 else (ProviderRefused, "boneagectl doctor --target azure")
        )
        return kind(f"Azure refused the job with {status}: {_line(error)}", next_step)
    return SubmitUncertain(f"Azure answered {status}: {_line(error)}", LATER)


def _line(error: Any) -> str:
    return " ".join(str(getattr(error, "message", "") or error).split())[:300]
