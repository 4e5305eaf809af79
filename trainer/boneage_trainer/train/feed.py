"""Batches for one epoch: the order and every random draw follow from (seed, epoch, row) alone."""

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
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Feed:
    """Draws from `pack` the `rows` of a training set, `batch_size` at a time; what does not fill a batch
    waits for another epoch's order. `threads` changes the speed, never a byte."""

    pack: Pack
    rows: Sequence[int]
    batch_size: int
    seed: int
    augment: bool
    threads: int = 2

    @property
    def steps(self) -> int:
        return max(1, len(self.rows) // self.batch_size)

    @property
    def images(self) -> int:
        """How many one epoch draws."""
        return self.steps * min(self.batch_size, len(self.rows))

    def order(self, number: int) -> list[RowNumbers]:
        """The rows (b,) of each batch of epoch `number`."""
        order = np.random.default_rng((self.seed, number)).permutation(np.asarray(self.rows))
        size = min(self.batch_size, len(order))
        return [order[start : start + size] for start in range(0, self.steps * size, size)]

    def epoch(
        self, number: int, draw: int | None = None, size_px: int | None = None
    ) -> Iterator[tuple[RowNumbers, Images]]:
        """Row numbers (b,) and images (b, px, px, 1) of each batch, made ahead by threads, in order.

        `draw` names the augmentation; by default every epoch has its own. `size_px` is for images
        smaller than the pack's.
        """
        return self.made(self.order(number), number if draw is None else draw, size_px)

    def made(
        self, batches: list[RowNumbers], draw: int, size_px: int | None = None
    ) -> Iterator[tuple[RowNumbers, Images]]:
        """The images of the rows of each of `batches`; draw 0 leaves them as they are."""
        draws = self._draws(draw)
        size_px = size_px or self.pack.images.shape[1]
        return _ahead(batches, lambda rows: self._images(rows, draws, size_px), self.threads)

    def _draws(self, draw: int) -> Floats | None:
        """Eight numbers in -1..1 for each image of the pack, whether it is drawn or not.

        One table a draw: a generator for each image would take as long as turning it.
        """
        if not (self.augment and draw):
            return None
        return np.random.default_rng((self.seed, draw, 1)).uniform(-1, 1, (len(self.pack.images), 8))

    def _images(self, rows: RowNumbers, draws: Floats | None, size_px: int) -> Images:
        images = self.pack.images[rows]
        return (downscale(images, size_px) if draws is None else augment_images(images, draws[rows], size_px))[
            ..., None
        ]


def split_batches(rows: Sequence[int], size: int) -> list[RowNumbers]:
    """`rows` in their own order, `size` at a time, the rest in the last."""
    return [np.asarray(rows[at : at + size]) for at in range(0, len(rows), size)]


def downscale(images: Images, size_px: int) -> Images:
    """`images` (b, px, px) averaged down to `size_px`."""
    if images.shape[1] == size_px:
        return images
    return np.stack([cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA) for image in images])


def augment_images(images: Images, draws: Floats, size_px: int) -> Images:
    """Flipped, turned, scaled, shifted and re-toned copies of `images` (b, px, px) at `size_px`, by `draws` (b, 8)."""
    size = (size_px, size_px)
    turns = _turns(draws, images.shape[1])
    turns[:, :, 2] += 0.5  # pixels are squares: their centres lie half a pixel from the border
    turns *= size_px / images.shape[1]
    turns[:, :, 2] -= 0.5
    done = np.empty((len(images), *size), np.uint8)
    for image, out, matrix, tones in zip(images, done, turns, _tones(draws), strict=True):
        cv2.warpAffine(image, matrix, size, dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.LUT(out, tones, dst=out)
    return done


def _turns(draws: Floats, side: int) -> Floats:
    """Affine maps (b, 2, 3): up to 15 degrees and 12 % about the centre, 4 % to any side, half of them flipped."""
    angle, scale = np.radians(15 * draws[:, 0]), 1 + 0.12 * draws[:, 1]
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    centre, flip = (side - 1) / 2, np.where(draws[:, 4] < 0, -1, 1)
    turns = np.empty((len(draws), 2, 3))
    turns[:, 0, 0], turns[:, 0, 1] = flip * cosine, sine
    turns[:, 1, 0], turns[:, 1, 1] = -flip * sine, cosine
    turns[:, :, 2] = centre + 0.04 * side * draws[:, 2:4] - centre * turns[:, :, :2].sum(axis=2)
    return turns


def _tones(draws: Floats) -> Images:
    """Tables (b, 256) for all gray levels: 15 % of contrast, 25 levels of brightness, gamma 0.85 to 1.15."""
    contrast, brightness, gamma = (1 + 0.15 * draws[:, 5:6], 25 * draws[:, 6:7], 1 + 0.15 * draws[:, 7:8])
    levels = 255 * (np.arange(256) / 255) ** gamma
    return np.clip(128 + contrast * (levels - 128) + brightness, 0, 255).astype(np.uint8)


def _ahead(
    batches: list[RowNumbers], make: Callable[[RowNumbers], Images], threads: int
) -> Iterator[tuple[RowNumbers, Images]]:
    """Makes batches in threads while the last one is at work; an error there is raised here."""
    waiting: deque[tuple[RowNumbers, Future[Images]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for rows in batches:
                waiting.append((rows, pool.submit(make, rows)))
                if len(waiting) > _AHEAD:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[RowNumbers, Future[Images]]]) -> tuple[RowNumbers, Images]:
    rows, future = waiting.popleft()
    return rows, future.result()


# == features: What a frozen backbone makes of the images, computed once and trained from as often as wanted.

FeaturesRows = npt.NDArray[np.intp]
_MEMORY_SHARE = 0.25
_DISK_SHARE = 0.8


@dataclass(slots=True)
class Features:
    """`array` (n, ...) holds the features of n images; `features[rows]` finds those of pack rows by `place`."""

    array: Any
    place: dict[int, int]

    def __getitem__(self, rows: Sequence[int] | FeaturesRows) -> Any:
        return self.array[[self.place[int(row)] for row in rows]]


@dataclass(slots=True)
class FeatureCache:
    """Computes with `compute` (rows, draw -> batches of features in order) and keeps what fits.

    In memory where a quarter of what is free holds all `total` images, else in a nameless file in
    `folder`, which the system takes back however the process ends.
    """

    compute: Callable[[Sequence[int], int], Iterator[Any]]
    shape: tuple[int, ...]
    dtype: Any
    total: int
    folder: Path
    kept: dict[tuple[str, int], Features] = field(default_factory=dict)
    on_disk: bool = field(init=False)

    def __post_init__(self) -> None:
        """Decided once: what is kept later makes less memory free, which must not send the rest elsewhere."""
        self.on_disk = self.total_bytes > _MEMORY_SHARE * free_memory_bytes()

    @property
    def total_bytes(self) -> int:
        return int(self.total * np.prod(self.shape) * np.dtype(self.dtype).itemsize)

    def fits(self) -> bool:
        """Whether memory or disk can hold all of it."""
        return not self.on_disk or self.total_bytes < _DISK_SHARE * shutil.disk_usage(self.folder).free

    def of(self, part: str, rows: Sequence[int], draw: int) -> Features:
        """The features of `rows`, augmented by `draw` (0: not at all); computed the first time only."""
        if (part, draw) not in self.kept:
            array, at = self._room(len(rows)), 0
            for some in self.compute(rows, draw):
                array[at : at + len(some)] = some
                at += len(some)
            self.kept[part, draw] = Features(array, {int(row): place for place, row in enumerate(rows)})
        return self.kept[part, draw]

    def _room(self, count: int) -> Any:
        if not self.on_disk:
            return np.empty((count, *self.shape), self.dtype)
        with tempfile.TemporaryFile(dir=self.folder) as stream:
            return np.memmap(stream, self.dtype, "w+", shape=(count, *self.shape))


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
