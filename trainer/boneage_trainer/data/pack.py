"""Opens a pack for training: the images stay on disk, the index is in memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from boneage_trainer.contract import ContractError, PackFolder

Images = npt.NDArray[np.uint8]


class StoredImages:
    """The uint8 array (n, px, px) of an .npy file, of which only the requested rows are ever in memory.

    A memory map would take fewer lines, but every page it touches counts as memory of this process, which
    then seems to grow to the size of its pack, and is killed for it in a container.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError where `path` is not such a file."""
        array = np.load(path, mmap_mode="r")
        self.shape, self.dtype, self._start = array.shape, array.dtype, array.offset
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Images:
        """Copies of the images numbered `rows`, in that order; safe to call from several threads."""
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for image, row in zip(images, rows, strict=True):
            if os.preadv(self._file, [image], self._start + int(row) * image.nbytes) != image.nbytes:
                raise OSError(f"the pack's array ends before row {row} of {len(self)}")
        return images


@dataclass(frozen=True, slots=True)
class Pack:
    """`images[rows]` reads uint8 (n, px, px); `male` 0 or 1 and `months` are float32 (n,), in index order.

    `sha256` are those of the source files.
    """

    images: StoredImages
    ids: list[str]
    male: npt.NDArray[np.float32]
    months: npt.NDArray[np.float32]
    folder: Path
    sha256: list[str]


def open_pack(root: Path, expected: dict[str, Any]) -> Pack:
    """The labelled pack at `root`; `expected` is the `data` of the job.

    An empty ``fingerprint`` there accepts any images of the job's ``image_size_px``.

    Raises:
        ContractError: no pack, a torn or unlabelled one, or other images than the job was made for.
    """
    folder = PackFolder(root)
    card = folder.read_card()
    fingerprint, size_px = expected["fingerprint"], expected["image_size_px"]
    if fingerprint and card["fingerprint"] != fingerprint:
        raise ContractError(f"pack {root} has fingerprint {card['fingerprint'][:12]}, the job needs {fingerprint[:12]}")
    if not fingerprint and card["image_size_px"] != size_px:
        raise ContractError(f"pack {root} has images of {card['image_size_px']} px, the job needs {size_px} px")
    try:
        images = StoredImages(folder.images)
        index = pd.read_csv(folder.index, dtype={"id": str, "male": str, "sha256": str})
    except (OSError, ValueError) as error:
        raise ContractError(f"pack {root} cannot be read: {error}") from None
    if images.shape != (len(index), card["image_size_px"], card["image_size_px"]) or images.dtype != np.uint8:
        raise ContractError(
            f"pack {root}: images {images.shape} {images.dtype} do not fit the index of {len(index)} rows"
        )
    months = index["boneage_months"].to_numpy(np.float32)
    if np.isnan(months).any():
        raise ContractError(f"pack {root} has images without an age")
    male = (index["male"] == "True").to_numpy(np.float32)
    return Pack(images, index["id"].tolist(), male, months, root, index["sha256"].tolist())
