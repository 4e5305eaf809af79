"""Whether a gray picture can be a radiograph of a hand at all: a cheap look at its statistics, not a recognition.

The bounds lie beyond what 12,611 real radiographs (RSNA 2017, at 100 px), ten at full size and 540 drawn hands
show; docs/results.md says how many of them are refused. A radiograph of another part of the body passes.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.pixels import Gray, square

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
    return _of_shape(gray) or _of_levels(gray) or _of_structure(square(made, _SIDE_PX).astype(np.float32))


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
