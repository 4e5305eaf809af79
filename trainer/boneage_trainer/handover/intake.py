"""From a file to the square a model takes, or the reason why not: PNG, JPEG and DICOM."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from boneage_trainer.contract import ContractError
from boneage_trainer.handover import screen
from boneage_trainer.pixels import Gray, decode, square

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_GRAY_PNG = (0, 4)
_TINT, _COLOUR_SHARE = 40, 0.05
"""A scanned film may be tinted; a colour photograph has pixels whose channels lie further apart."""


def files_in(given: Sequence[Path]) -> list[Path]:
    """`given`, with each folder replaced by the pictures below it, in order of their names.

    Raises:
        ContractError: a folder has none.
    """
    return [file for path in given for file in (_below(path) if path.is_dir() else [path])]


def _below(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ContractError(f"{folder} has no pictures ({', '.join(SUFFIXES)})")
    return found


def square_of(file: Path, size_px: int, anyway: bool) -> Gray:
    """The picture in `file` as `data prepare` makes it, (size_px, size_px); with `anyway`, whatever it shows.

    Raises:
        ContractError: it cannot be read, or is no picture like a radiograph of a hand; the message says why.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}") from None
    gray = _gray(data)
    made = square(gray, size_px)
    reason = "" if anyway else _objection(data, gray, made)
    if reason:
        raise ContractError(f"no radiograph of a hand: {reason}")
    return made


def _gray(data: bytes) -> Gray:
    if not _is_dicom(data):
        gray = decode(data)
        if gray is None:
            raise ContractError("broken, cut short or no image")
        return gray
    if importlib.util.find_spec("pydicom") is None:
        raise ContractError("DICOM needs pydicom: pip install 'boneagectl[dicom]'")
    from boneage_trainer.handover import dicom

    return dicom.gray_of(data)


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _objection(data: bytes, gray: Gray, made: Gray) -> str:
    return "it is a colour picture" if _is_colour(data) else screen.objection(gray, made)


def _is_colour(data: bytes) -> bool:
    """Whether the channels differ, of files that have several; gray ones are not decoded again."""
    is_png = data.startswith(b"\x89PNG")
    if _is_dicom(data) or (is_png and data[25] in _GRAY_PNG):
        return False
    colours = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_4)
    if colours is None:
        return False
    apart = colours.max(axis=2).astype(int) - colours.min(axis=2)
    return bool((apart > _TINT).mean() > _COLOUR_SHARE)
