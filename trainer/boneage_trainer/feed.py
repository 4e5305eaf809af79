"""Batches for one epoch: the order and every random draw follow from (seed, epoch, row) alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.pack import Pack

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.intp]
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Feed:
    """Draws from `pack` the `rows` of a training set, `batch_size` at a time; what does not fill a batch
    waits for another epoch's order."""

    pack: Pack
    rows: Sequence[int]
    batch_size: int
    seed: int
    augment: bool

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

    def epoch(
        self, number: int, draw: int | None = None, size_px: int | None = None
    ) -> Iterator[tuple[Rows, Images]]:
        """Row numbers (b,) and images (b, px, px, 1) of each batch, made ahead by a thread.

        `draw` names the augmentation; by default every epoch has its own. `size_px` is for smaller
        images than the pack's.
        """
        return self.made(self.order(number), number if draw is None else draw, size_px)

    def made(self, batches: Iterable[Rows], draw: int, size_px: int | None = None) -> Iterator[tuple[Rows, Images]]:
        """The images of the rows of each of `batches`; draw 0 leaves them as they are."""
        return _ahead(batches, lambda rows: self._images(rows, draw, size_px or self.pack.images.shape[1]))

    def _images(self, rows: Rows, draw: int) -> Images:
        images = self.pack.take(rows)
        if self.augment and draw:
            for at, row in enumerate(rows):
                images[at] = augmented(images[at], (self.seed, draw, int(row)))
        return images[..., None]


def in_batches(rows: Sequence[int], size: int) -> list[Rows]:
    """`rows` in their own order, `size` at a time, the rest in the last."""
    return [np.asarray(rows[at : at + size]) for at in range(0, len(rows), size)]


def augmented(image: Images, key: tuple[int, ...]) -> Images:
    """A flipped, turned, scaled, shifted and re-toned copy of one (px, px) image; `key` decides how."""
    draw = np.random.default_rng(key).uniform(-1, 1, 8)
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), 15 * draw[0], 1 + 0.12 * draw[1])
    matrix[:, 2] += 0.04 * side * draw[2:4]
    if draw[4] < 0:
        matrix = matrix @ np.array([[-1, 0, side - 1], [0, 1, 0], [0, 0, 1.0]])
    turned = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    tones = _tones(1 + 0.15 * draw[5], 25 * draw[6], 1 + 0.15 * draw[7])
    return np.asarray(cv2.LUT(turned, tones), np.uint8)


def _tones(contrast: float, brightness: float, gamma: float) -> Images:
    """A table (256,) for all gray levels at once."""
    levels = 255 * (np.arange(256) / 255) ** gamma
    return np.clip(128 + contrast * (levels - 128) + brightness, 0, 255).astype(np.uint8)


def _ahead(batches: Iterable[Any], make: Callable[[Any], Images]) -> Iterator[tuple[Any, Images]]:
    """Makes batches in a thread while the last one is at work; an error there is raised here."""
    made: queue.Queue[Any] = queue.Queue(_AHEAD)
    leaving = threading.Event()

    def work() -> None:
        try:
            for rows in batches:
                if leaving.is_set():
                    return
                made.put((rows, make(rows)))
            made.put(None)
        except BaseException as error:
            made.put(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        leaving.set()
        while worker.is_alive():  # it may wait for room in the queue
            try:
                made.get(timeout=0.05)
            except queue.Empty:
                continue
