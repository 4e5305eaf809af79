"""Views of a test image: the same hand mirrored, turned and scaled a little, for predictions to be averaged over."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

# Mirrored or not, degrees, scale: each plain one is followed by its mirror image, so even counts are balanced.
_VIEWS = tuple(
    (mirrored, turn, scale)
    for turn, scale in ((0.0, 1.0), (8.0, 1.0), (-8.0, 1.0), (0.0, 1.06), (0.0, 0.95))
    for mirrored in (False, True)
)
MOST = len(_VIEWS)


def view(images: Images, number: int) -> Images:
    """View `number` (0 to 9; 0 is the image itself) of `images` (b, px, px); the same on every call."""
    mirrored, turn, scale = _VIEWS[number]
    if mirrored:
        images = images[:, :, ::-1]
    if (turn, scale) != (0.0, 1.0):
        images = np.stack([_turned(image, turn, scale) for image in images])
    return np.ascontiguousarray(images)


def _turned(image: Images, turn: float, scale: float) -> Images:
    middle = (image.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), turn, scale)
    size = (image.shape[1], image.shape[0])
    turned = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)
