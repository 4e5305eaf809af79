"""Batches for one epoch: the order and every random draw follow from (seed, epoch, row) alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.pack import Images, Pack

Rows = npt.NDArray[np.intp]
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

    def order(self, number: int) -> list[Rows]:
        """The rows (b,) of each batch of epoch `number`."""
        order = np.random.default_rng((self.seed, number)).permutation(np.asarray(self.rows))
        size = min(self.batch_size, len(order))
        return [order[start : start + size] for start in range(0, self.steps * size, size)]

    def epoch(self, number: int, draw: int | None = None, size_px: int | None = None) -> Iterator[tuple[Rows, Images]]:
        """Row numbers (b,) and images (b, px, px, 1) of each batch, made ahead by threads, in order.

        `draw` names the augmentation; by default every epoch has its own. `size_px` is for images
        smaller than the pack's.
        """
        return self.made(self.order(number), number if draw is None else draw, size_px)

    def made(self, batches: list[Rows], draw: int, size_px: int | None = None) -> Iterator[tuple[Rows, Images]]:
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

    def _images(self, rows: Rows, draws: Floats | None, size_px: int) -> Images:
        images = self.pack.images[rows]
        return (scaled(images, size_px) if draws is None else augmented(images, draws[rows], size_px))[..., None]


def in_batches(rows: Sequence[int], size: int) -> list[Rows]:
    """`rows` in their own order, `size` at a time, the rest in the last."""
    return [np.asarray(rows[at : at + size]) for at in range(0, len(rows), size)]


def scaled(images: Images, size_px: int) -> Images:
    """`images` (b, px, px) averaged down to `size_px`."""
    if images.shape[1] == size_px:
        return images
    return np.stack([cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA) for image in images])


def augmented(images: Images, draws: Floats, size_px: int) -> Images:
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


def _ahead(batches: list[Rows], make: Callable[[Rows], Images], threads: int) -> Iterator[tuple[Rows, Images]]:
    """Makes batches in threads while the last one is at work; an error there is raised here."""
    waiting: deque[tuple[Rows, Future[Images]]] = deque()
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


def _first(waiting: deque[tuple[Rows, Future[Images]]]) -> tuple[Rows, Images]:
    rows, future = waiting.popleft()
    return rows, future.result()
