"""Opens a pack for training: images stay on disk, the index is small."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from boneage_trainer.contract import ContractError, PackFolder


@dataclass(frozen=True, slots=True)
class Pack:
    """`images` is a memory map, uint8 (n, px, px); `male` 0 or 1 and `months` are float32 (n,), in index order.

    `sha256` are those of the source files.
    """

    images: npt.NDArray[np.uint8]
    ids: list[str]
    male: npt.NDArray[np.float32]
    months: npt.NDArray[np.float32]
    folder: Path
    sha256: list[str]

    def take(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """A copy (b, px, px) of the images of `rows`; the mapped pages are given back, so memory stays small."""
        taken = np.asarray(self.images[np.sort(rows)][np.argsort(np.argsort(rows))])
        _give_back(self.images)
        return taken


def _give_back(images: npt.NDArray[np.uint8]) -> None:
    """Pages of a mapped file count as this process's memory until they are; the file's cache keeps them."""
    mapped = getattr(images, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def open_pack(root: Path, expected: dict[str, Any]) -> Pack:
    """The labelled pack at `root`; `expected` is what the job says of its data.

    Raises:
        ContractError: no pack, a torn or unlabelled one, or other images than the job was made for.
    """
    folder = PackFolder(root)
    card = folder.read_card()
    if card["fingerprint"] != expected["fingerprint"]:
        raise ContractError(
            f"pack {root} has fingerprint {card['fingerprint'][:12]}, the job {expected['fingerprint'][:12]}"
        )
    try:
        images = np.load(folder.images, mmap_mode="r")
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
