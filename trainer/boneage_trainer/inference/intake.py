"""From a file to the square a model takes, or the reason why not: PNG, JPEG and DICOM."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pixels import Gray, decode_gray, fit_square

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
    made = fit_square(gray, size_px)
    reason = "" if anyway else _objection(data, gray, made)
    if reason:
        raise ContractError(f"no radiograph of a hand: {reason}")
    return made


def _gray(data: bytes) -> Gray:
    if not _is_dicom(data):
        gray = decode_gray(data)
        if gray is None:
            raise ContractError("broken, cut short or no image")
        return gray
    if importlib.util.find_spec("pydicom") is None:
        raise ContractError("DICOM needs pydicom: pip install 'boneagectl[dicom]'")
    from boneage_trainer.inference import dicom

    return dicom.gray_of(data)


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _objection(data: bytes, gray: Gray, made: Gray) -> str:
    return "it is a colour picture" if _is_colour(data) else objection(gray, made)


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


# == screen: Whether a gray picture can be a radiograph of a hand at all: a cheap look at its statistics, not a

Floats = npt.NDArray[np.floating]
_SIDE_PX = 96
_SMALLEST_PX, _LONGEST = 32, 3.0
_CONTRAST = 15.0
_LEVELS, _TWO_LEVELS = 16, 0.93
_EDGES = (0.018, 0.16)
_PIECES = 30
_REPEATING = -0.05


def objection(gray: Gray, made: Gray) -> str:
    """Why the picture `gray` (height, width), of which `made` is the square, is no radiograph of a hand; or nothing."""
    return _of_shape(gray) or _of_levels(gray) or _of_structure(fit_square(made, _SIDE_PX).astype(np.float32))


def _of_shape(gray: Gray) -> str:
    height, width = gray.shape
    if min(height, width) < _SMALLEST_PX:
        return f"it has only {width} x {height} px"
    if max(height, width) > _LONGEST * min(height, width):
        return f"it is a strip of {width} x {height} px"
    return ""


def _of_levels(gray: Gray) -> str:
    shares = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel() / gray.size
    if _spread(shares) < _CONTRAST:
        return "it is nearly blank"
    if (shares > 0).sum() < _LEVELS or np.sort(shares)[-2:].sum() > _TWO_LEVELS:
        return "it has next to no gray tones, like a drawing, a mask or text"
    return ""


def _spread(shares: Floats) -> int:
    """Gray levels between the darkest and the brightest hundredth of the pixels."""
    low, high = np.searchsorted(np.cumsum(shares), (0.01, 0.99))
    return int(high - low)


def _of_structure(small: Floats) -> str:
    """`small` is (96, 96)."""
    low, high = np.percentile(small, (1, 99))
    steps = np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()
    edges = steps / max(high - low, 1)
    if edges < _EDGES[0]:
        return "it shows no shape, only a slow change of brightness"
    if edges > _EDGES[1]:
        return "it is all fine texture or noise"
    if _pieces(small) > _PIECES:
        return "it is in many pieces, like a photograph of a scene or a page of text"
    return "it repeats itself, like a pattern" if _likeness(small, 8) < _REPEATING else ""


def _pieces(small: Floats) -> int:
    """How many areas there are, brighter and darker than Otsu's threshold."""
    _, bright = cv2.threshold(small.astype(np.uint8), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return int(cv2.connectedComponents(bright)[0] + cv2.connectedComponents(1 - bright)[0])


def _likeness(small: Floats, shift: int) -> float:
    """How a picture resembles itself `shift` pixels further, in the direction in which it does so less; -1 to 1."""
    centred = small - small.mean()
    power = max(float((centred**2).mean()), 1e-6)
    down, across = centred[shift:] * centred[:-shift], centred[:, shift:] * centred[:, :-shift]
    return min(float(down.mean()), float(across.mean())) / power
