"""What a run trains on: batches of images, augmented, and cached features of a frozen backbone.

The order of an epoch and every random draw follow from (seed, epoch, row) alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.data.pack import Images, Pack

RowNumbers = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
_BATCHES_AHEAD = 4
_MEMORY_SHARE = 0.25
_DISK_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Feed:
    """Batches of `batch_size` from the `rows` of a training set of `pack`.

    Rows that do not fill a batch are left out of an epoch, other ones in each. `threads` changes the speed,
    never a byte.
    """

    pack: Pack
    rows: Sequence[int]
    batch_size: int
    seed: int
    augment: bool
    threads: int = 2

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return max(1, len(self.rows) // self.batch_size)

    @property
    def images(self) -> int:
        """Images in one epoch."""
        return self.steps * min(self.batch_size, len(self.rows))

    def batch_rows(self, epoch: int) -> list[RowNumbers]:
        """The row numbers (b,) of each batch of `epoch`."""
        order = np.random.default_rng((self.seed, epoch)).permutation(np.asarray(self.rows))
        size = min(self.batch_size, len(order))
        return [order[start : start + size] for start in range(0, self.steps * size, size)]

    def load_epoch(
        self, epoch: int, draw: int | None = None, size_px: int | None = None
    ) -> Iterator[tuple[RowNumbers, Images]]:
        """Row numbers (b,) and images (b, px, px, 1) of each batch, made ahead by threads, in order.

        `draw` names the augmentation; by default every epoch has its own. `size_px` is for images
        smaller than the pack's.
        """
        return self.load_batches(self.batch_rows(epoch), epoch if draw is None else draw, size_px)

    def load_batches(
        self, batches: list[RowNumbers], draw: int, size_px: int | None = None
    ) -> Iterator[tuple[RowNumbers, Images]]:
        """The row numbers and images of each of `batches`; draw 0 does not augment them."""
        draws: Floats | None = None
        if self.augment and draw:
            # Eight numbers in -1..1 for every image of the pack, used or not: one table per draw, since a
            # generator for each image would take as long as turning it.
            draws = np.random.default_rng((self.seed, draw, 1)).uniform(-1, 1, (len(self.pack.images), 8))
        side_px = size_px or self.pack.images.shape[1]

        def load(rows: RowNumbers) -> Images:
            images = self.pack.images[rows]
            images = downscale(images, side_px) if draws is None else augment_images(images, draws[rows], side_px)
            return images[..., None]

        return _load_ahead(batches, load, self.threads)


def _load_ahead(
    batches: list[RowNumbers], load: Callable[[RowNumbers], Images], threads: int
) -> Iterator[tuple[RowNumbers, Images]]:
    """Loads batches in threads while the last one is used; an error in a thread is raised here."""
    waiting: deque[tuple[RowNumbers, Future[Images]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for rows in batches:
                waiting.append((rows, pool.submit(load, rows)))
                if len(waiting) > _BATCHES_AHEAD:
                    rows, future = waiting.popleft()
                    yield rows, future.result()
            while waiting:
                rows, future = waiting.popleft()
                yield rows, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def split_batches(rows: Sequence[int], size: int) -> list[RowNumbers]:
    """`rows` in their own order, `size` in each batch, the rest in the last."""
    return [np.asarray(rows[start : start + size]) for start in range(0, len(rows), size)]


# ----------------------------------------------------------------------------------- augmentation
def downscale(images: Images, size_px: int) -> Images:
    """`images` (b, px, px) averaged down to `size_px`."""
    if images.shape[1] == size_px:
        return images
    return np.stack([cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA) for image in images])


def augment_images(images: Images, draws: Floats, size_px: int) -> Images:
    """Flipped, turned, scaled, shifted and re-toned copies of `images` (b, px, px) at `size_px`, by `draws` (b, 8)."""
    size = (size_px, size_px)
    matrices = _affine_matrices(draws, images.shape[1])
    matrices[:, :, 2] += 0.5  # pixels are squares: their centres lie half a pixel from the border
    matrices *= size_px / images.shape[1]
    matrices[:, :, 2] -= 0.5
    augmented = np.empty((len(images), *size), np.uint8)
    for image, out, matrix, tones in zip(images, augmented, matrices, _tone_tables(draws), strict=True):
        cv2.warpAffine(image, matrix, size, dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.LUT(out, tones, dst=out)
    return augmented


def _affine_matrices(draws: Floats, side_px: int) -> Floats:
    """Affine maps (b, 2, 3): up to 15 degrees and 12 % about the centre, 4 % to any side, half of them flipped."""
    angle, scale = np.radians(15 * draws[:, 0]), 1 + 0.12 * draws[:, 1]
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    centre, flip = (side_px - 1) / 2, np.where(draws[:, 4] < 0, -1, 1)
    matrices = np.empty((len(draws), 2, 3))
    matrices[:, 0, 0], matrices[:, 0, 1] = flip * cosine, sine
    matrices[:, 1, 0], matrices[:, 1, 1] = -flip * sine, cosine
    matrices[:, :, 2] = centre + 0.04 * side_px * draws[:, 2:4] - centre * matrices[:, :, :2].sum(axis=2)
    return matrices


def _tone_tables(draws: Floats) -> Images:
    """Tables (b, 256) for all gray levels: 15 % of contrast, 25 levels of brightness, gamma 0.85 to 1.15."""
    contrast, brightness, gamma = (1 + 0.15 * draws[:, 5:6], 25 * draws[:, 6:7], 1 + 0.15 * draws[:, 7:8])
    levels = 255 * (np.arange(256) / 255) ** gamma
    return np.clip(128 + contrast * (levels - 128) + brightness, 0, 255).astype(np.uint8)


# --------------------------------------------------------------------------------------- features
@dataclass(slots=True)
class Features:
    """`array` (n, ...) holds the features of n images; `features[rows]` are those of pack rows, by `positions`."""

    array: Any
    positions: dict[int, int]

    def __getitem__(self, rows: Sequence[int] | RowNumbers) -> Any:
        return self.array[[self.positions[int(row)] for row in rows]]


@dataclass(slots=True)
class FeatureCache:
    """Features of a frozen backbone, computed once with `compute` (rows, draw -> batches of features in order).

    In memory where a quarter of the free memory holds all `total` images, else in a nameless file in
    `folder`, which the system removes however the process ends.
    """

    compute: Callable[[Sequence[int], int], Iterator[Any]]
    shape: tuple[int, ...]
    dtype: Any
    total: int
    folder: Path
    cached: dict[tuple[str, int], Features] = field(default_factory=dict)
    on_disk: bool = field(init=False)

    def __post_init__(self) -> None:
        """Decided once: features cached later leave less free memory, which must not send the rest elsewhere."""
        self.on_disk = self.total_bytes > _MEMORY_SHARE * free_memory_bytes()

    @property
    def total_bytes(self) -> int:
        return int(self.total * np.prod(self.shape) * np.dtype(self.dtype).itemsize)

    def fits(self) -> bool:
        """Whether memory or disk can hold all of it."""
        return not self.on_disk or self.total_bytes < _DISK_SHARE * shutil.disk_usage(self.folder).free

    def get(self, part: str, rows: Sequence[int], draw: int) -> Features:
        """The features of `rows`, augmented by `draw` (0: not at all); computed the first time only."""
        if (part, draw) not in self.cached:
            shape, filled = (len(rows), *self.shape), 0
            if self.on_disk:
                with tempfile.TemporaryFile(dir=self.folder) as stream:
                    array: Any = np.memmap(stream, self.dtype, "w+", shape=shape)
            else:
                array = np.empty(shape, self.dtype)
            for features in self.compute(rows, draw):
                array[filled : filled + len(features)] = features
                filled += len(features)
            positions = {int(row): position for position, row in enumerate(rows)}
            self.cached[part, draw] = Features(array, positions)
        return self.cached[part, draw]


def free_memory_bytes() -> int:
    """What the kernel could give without swapping; inside a container, its limit if that is smaller."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    with contextlib.suppress(OSError, ValueError):  # no limit, or no such file
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    return max(0, free)
