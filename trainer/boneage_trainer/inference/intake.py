"""Image files (PNG, JPEG, DICOM) to the square that a model takes, or the reason why a file is refused.

The check that a picture can be a hand radiograph looks at cheap statistics only. It stops photographs, scans of text
and blank images; it does not recognize hands.
"""

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
Floats = npt.NDArray[np.floating]

_GRAY_PNG_TYPES = (0, 4)
_MAX_TINT, _COLOUR_SHARE = 40, 0.05
"""A scanned film may be tinted; in a colour photograph, the channels of many pixels lie further apart."""
_MIN_SIDE_PX, _MAX_ASPECT = 32, 3.0
_MIN_CONTRAST = 15
_MIN_LEVELS, _MAX_TWO_LEVELS = 16, 0.93
_SIDE_PX = 96
_EDGES = (0.018, 0.16)
_MAX_PIECES = 30
_SHIFT_PX, _MIN_CORRELATION = 8, -0.05


def list_images(paths: Sequence[Path]) -> list[Path]:
    """`paths`, with each folder replaced by the images below it, sorted by name.

    Raises:
        ContractError: a folder has no images.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not images:
            raise ContractError(f"{path} has no images ({', '.join(SUFFIXES)})")
        files += images
    return files


def load_square(file: Path, size_px: int, accept_any: bool) -> Gray:
    """The image in `file` as `data prepare` makes it, (size_px, size_px) uint8.

    Raises:
        ContractError: it cannot be read, or (unless `accept_any`) does not look like a hand radiograph.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}") from None
    if not _is_dicom(data):
        gray = decode_gray(data)
    elif importlib.util.find_spec("pydicom"):
        from boneage_trainer.inference import dicom

        gray = dicom.decode_dicom(data)
    else:
        raise ContractError("DICOM needs pydicom. Run: pip install 'boneagectl[dicom]'")
    if gray is None:
        raise ContractError("broken, truncated or not an image")
    prepared = fit_square(gray, size_px)
    if not accept_any and (reason := _refusal(data, gray, prepared)):
        raise ContractError(f"not a hand radiograph: {reason}")
    return prepared


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _refusal(data: bytes, gray: Gray, prepared: Gray) -> str:
    """Why the picture `gray` (height, width), `prepared` as a square, cannot be a hand radiograph; or nothing."""
    if _is_colour(data):
        return "colour picture"
    height, width = gray.shape
    if min(height, width) < _MIN_SIDE_PX:
        return f"only {width} x {height} px"
    if max(height, width) > _MAX_ASPECT * min(height, width):
        return f"a strip of {width} x {height} px"
    shares = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel() / gray.size
    darkest, brightest = np.searchsorted(np.cumsum(shares), (0.01, 0.99))
    if brightest - darkest < _MIN_CONTRAST:
        return "nearly blank"
    if (shares > 0).sum() < _MIN_LEVELS or np.sort(shares)[-2:].sum() > _MAX_TWO_LEVELS:
        return "almost no gray tones, like a drawing, a mask or text"
    return _structural_refusal(fit_square(prepared, _SIDE_PX).astype(np.float32))


def _is_colour(data: bytes) -> bool:
    """Whether the channels differ; files that are gray by their header are not decoded again."""
    if _is_dicom(data) or (data.startswith(b"\x89PNG") and data[25] in _GRAY_PNG_TYPES):
        return False
    colours = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_4)
    if colours is None:
        return False
    distance = colours.max(axis=2).astype(int) - colours.min(axis=2)
    return bool((distance > _MAX_TINT).mean() > _COLOUR_SHARE)


def _structural_refusal(small: Floats) -> str:
    """`small` is (96, 96)."""
    low, high = np.percentile(small, (1, 99))
    steps = np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()
    edges = steps / max(high - low, 1)
    if edges < _EDGES[0]:
        return "no shapes, only a slow change of brightness"
    if edges > _EDGES[1]:
        return "fine texture or noise everywhere"
    # Connected areas brighter and darker than Otsu's threshold.
    _, bright = cv2.threshold(small.astype(np.uint8), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if cv2.connectedComponents(bright)[0] + cv2.connectedComponents(1 - bright)[0] > _MAX_PIECES:
        return "many separate pieces, like a photograph of a scene or a page of text"
    # Correlation with the picture moved by eight pixels, in the direction where it is lower.
    centred = small - small.mean()
    down, across = centred[_SHIFT_PX:] * centred[:-_SHIFT_PX], centred[:, _SHIFT_PX:] * centred[:, :-_SHIFT_PX]
    correlation = min(float(down.mean()), float(across.mean())) / max(float((centred**2).mean()), 1e-6)
    return "a repeating pattern" if correlation < _MIN_CORRELATION else ""
