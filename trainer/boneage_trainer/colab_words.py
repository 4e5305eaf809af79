"""What a notebook says at its turning points: what happened, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NO_GPU = (
    "1. Runtime > Change runtime type > T4 GPU, then Runtime > Run all. "
    "2. If Colab says that no GPU is available, your account has used up its share for now: try again in some hours, "
    "at times days. "
    "3. Or train elsewhere: boneagectl submit --target kaggle. "
    "4. Or tick ALLOW_CPU in the settings, which is slow"
)
NO_DRIVE = (
    "{why}. Run this cell again and allow the access when Google asks: without Drive, all that is trained is lost with "
    "the session"
)
NO_CHECKPOINT = (
    "there is no training to go on from: put the folder `checkpoint` (last.npz, best.npz) of the leg before this one "
    "into the folder {place} of your Drive, and run this cell again"
)
NO_TIME = (
    "no time is left in this session: Runtime > Disconnect and delete runtime, then Runtime > Run all. "
    "It goes on where it was"
)
_CUT = (
    "the session before was cut off after epoch {epoch}: idle too long, its page closed, or the machine taken back. "
    "Going on from there"
)
_AGAIN = "open this notebook again and choose Runtime > Run all. It goes on after epoch {epoch}"


def beginning(state: Mapping[str, Any], epoch: int) -> str:
    """What an earlier session left, of which `state` is the last word and `epoch` the last whole one."""
    if not epoch:
        return "Drive is connected; the training begins with epoch 1"
    if state.get("state") == "running":
        return _CUT.format(epoch=epoch)
    if state.get("state") == "complete":
        return f"this training is complete after {epoch} epochs; the cells below only make its results again"
    reason = f" ({state['reason']})" if state.get("reason") else ""
    return f"going on after epoch {epoch}, where the session before stopped{reason}"


def ending(state: Mapping[str, Any], missing: Sequence[str], leg: str) -> str:
    """How the training ended; `missing` is what could not be brought to Drive."""
    epoch, epochs = state.get("epoch", 0), state.get("epochs", 0)
    where = _on_drive(missing)
    if state["state"] == "complete":
        return f"COMPLETE after epoch {epoch}. {where}. The last cell offers the results"
    if state["state"] == "paused":
        again = _AGAIN.format(epoch=epoch)
        return f"PAUSED after epoch {epoch} of {epochs}: {state['reason']}. {where}. In a new session, {again}"
    return (f"the training of {leg} failed after epoch {epoch}: {state['reason']}. {where}. Read the lines above; "
            f"if the machine was to blame, {_AGAIN.format(epoch=epoch)}")  # fmt: skip


def _on_drive(missing: Sequence[str]) -> str:
    if not missing:
        return "Drive has all of it"
    return f"DRIVE LACKS {'; '.join(missing)}. Run the last cell now and keep the zip"


def result(evaluation: Mapping[str, Any]) -> str:
    """The error on images that were never trained on."""
    found = evaluation["sets"]["test"]
    return f"test error: {found['mae_months']:.2f} months (MAE) on {found['n']} images"


def goodbye(name: str, run: str, missing: Sequence[str]) -> str:
    """The last words: what to type at home."""
    drive = f"DRIVE LACKS {'; '.join(missing)}: keep this page open a while, and keep the download" if missing else (
        "Drive has everything, and is disconnected")  # fmt: skip
    return f"{drive}. On your own machine: boneagectl collect {run} --from {name}"
