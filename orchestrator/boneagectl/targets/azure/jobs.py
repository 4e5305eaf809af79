"""Submitting by the official SDK, and nothing else: it uploads the code and knows what a job.yml means."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from boneagectl.errors import InDoubt, MachineError
from boneagectl.targets.azure.arm import Place
from boneagectl.targets.azure.rendering import JOB

_CLEAR = range(400, 500)
_UNCLEAR = (408, 429)


def create(credential: Any, place: Place, rendered: Path) -> None:
    """Creates the job that the folder describes.

    Raises:
        MachineError: Azure refused it. InDoubt: no clear answer came; the job may exist.
    """
    with _quiet():
        try:
            from azure.ai.ml import MLClient, load_job
            from azure.core.exceptions import AzureError, HttpResponseError
        except ImportError as error:
            raise MachineError(
                f"the azure target needs azure-ai-ml: {error}", "pip install 'boneagectl[azure]'"
            ) from None
        client = MLClient(credential, place.subscription, place.resource_group, place.workspace, show_progress=False)
        try:
            client.jobs.create_or_update(load_job(rendered / JOB))
        except HttpResponseError as error:
            raise _translated(error) from None
        except AzureError as error:
            raise InDoubt(
                f"no answer from Azure: {_line(error)}", "boneagectl ls looks whether the job came to be"
            ) from None


def _translated(error: Any) -> MachineError:
    status = error.status_code or 0
    if status in _CLEAR and status not in _UNCLEAR:
        return MachineError(f"Azure refused the job with {status}: {_line(error)}", "boneagectl doctor --target azure")
    return InDoubt(f"Azure answered {status}: {_line(error)}", "boneagectl ls looks whether the job came to be")


def _line(error: Any) -> str:
    return " ".join(str(getattr(error, "message", "") or error).split())[:300]


class _quiet:
    """Without the SDK's lines about experimental classes, which no level of its loggers silences."""

    def __enter__(self) -> None:
        self._was = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._was)
