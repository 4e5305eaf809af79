"""Submitting by the official SDK and nothing else: it uploads the code and defines what a job.yml means."""

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

_UNCLEAR = (408, 429)


def create_job(credential: Any, workspace: Workspace, rendered: Path) -> None:
    """Creates the job that the folder describes.

    Raises:
        NotSignedIn, ProviderRefused: there is no job. SubmitUncertain: no clear answer; the job may exist.
    """
    with _ml_client(credential, workspace) as client:
        from azure.ai.ml import load_job

        client.jobs.create_or_update(load_job(rendered / JOB))


def load_job_file(rendered: Path) -> Any:
    """The folder's job as the SDK understands it; no network.

    Raises:
        MachineError: the SDK does not accept it.
    """
    with _silenced():
        from azure.ai.ml import load_job

        try:
            return load_job(rendered / JOB)
        except Exception as error:  # whatever its schemas raise
            raise MachineError(f"azure-ai-ml does not accept {JOB}: {_one_line(error)}") from None


def register_pack(credential: Any, workspace: Workspace, name: str, pack: Path) -> None:
    """Uploads the folder `pack` as version 1 of the data asset `name`; raises as `create_job` does.

    On a terminal the SDK shows its own progress.
    """
    with _ml_client(credential, workspace, is_shown=sys.stderr.isatty()) as client:
        from azure.ai.ml.entities import Data

        client.data.create_or_update(Data(name=name, version="1", path=str(pack), type="uri_folder"))


@contextmanager
def _ml_client(credential: Any, workspace: Workspace, is_shown: bool = False) -> Iterator[Any]:
    """The SDK's client, its errors translated. It prints escape codes even where it is asked to be silent."""
    with _silenced(), nullcontext() if is_shown else redirect_stderr(io.StringIO()):
        from azure.ai.ml import MLClient
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            names = (workspace.subscription, workspace.resource_group, workspace.name)
            yield MLClient(credential, *names, show_progress=is_shown)
        except HttpResponseError as error:
            raise _translated(error) from None
        except AzureError as error:
            raise SubmitUncertain(f"no answer from Azure: {_one_line(error)}", LATER) from None


@contextmanager
def _silenced() -> Iterator[None]:
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
    if status == 401:
        return NotSignedIn(f"Azure refused the job with 401: {_one_line(error)}", "az login")
    if 400 <= status < 500 and status not in _UNCLEAR:
        message = f"Azure refused the job with {status}: {_one_line(error)}"
        return ProviderRefused(message, "boneagectl doctor --target azure")
    return SubmitUncertain(f"Azure answered {status}: {_one_line(error)}", LATER)


def _one_line(error: Any) -> str:
    return " ".join(str(getattr(error, "message", "") or error).split())[:300]
