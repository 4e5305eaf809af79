"""Views of an image for test-time augmentation: the same hand mirrored, turned and scaled a little."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

# Mirrored or not, degrees, scale: each plain view is followed by its mirror image, so even counts are balanced.
_VIEWS = tuple(
    (mirrored, degrees, scale)
    for degrees, scale in ((0.0, 1.0), (8.0, 1.0), (-8.0, 1.0), (0.0, 1.06), (0.0, 0.95))
    for mirrored in (False, True)
)
MAX_VIEWS = len(_VIEWS)


def make_view(images: Images, number: int) -> Images:
    """View `number` (0 to 9; 0 is the image itself) of `images` (n, px, px), uint8; the same on every call."""
    mirrored, degrees, scale = _VIEWS[number]
    if mirrored:
        images = images[:, :, ::-1]
    if (degrees, scale) != (0.0, 1.0):
        height, width = images.shape[1:]
        matrix = cv2.getRotationMatrix2D(((height - 1) / 2, (height - 1) / 2), degrees, scale)
        images = np.stack([
            cv2.warpAffine(np.ascontiguousarray(image), matrix, (width, height), flags=cv2.INTER_CUBIC,
                           borderMode=cv2.BORDER_REPLICATE)
            for image in images
        ]).astype(np.uint8)  # fmt: skip
    return np.ascontiguousarray(images)
