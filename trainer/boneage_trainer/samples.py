"""A contact sheet: one image for each sex and age band."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from boneage_trainer.contract import ContractError
from boneage_trainer.pixels import Gray, square

_CELL_PX, _MARGIN_PX, _CAPTION_PX = 160, 4, 18
_BAND_MONTHS = 30
_BANDS = 8


class Subject(Protocol):
    @property
    def male(self) -> bool: ...
    @property
    def boneage_months(self) -> float | None: ...


def sheet(subjects: Sequence[Subject], image: Callable[[int], Gray | None]) -> bytes:
    """PNG bytes: boys above girls, a column for every 30 months; `image` gives a subject's, by position."""
    rows = [[_cell(subjects, image, male, band) for band in range(_BANDS)] for male in (True, False)]
    done, data = cv2.imencode(".png", np.vstack([np.hstack(cells) for cells in rows]))
    if not done:
        raise ContractError("OpenCV could not encode the sheet of samples")
    return bytes(data)


def _cell(subjects: Sequence[Subject], image: Callable[[int], Gray | None], male: bool, band: int) -> Gray:
    cell = np.full((_CELL_PX + _CAPTION_PX + _MARGIN_PX, _CELL_PX + _MARGIN_PX), 32, np.uint8)
    caption = f"{'boys' if male else 'girls'} {band * _BAND_MONTHS}-{(band + 1) * _BAND_MONTHS - 1}: none"
    for at in _from_the_middle(_band(subjects, male, band)):
        if (gray := image(at)) is not None:
            cell[:_CELL_PX, :_CELL_PX] = square(gray, _CELL_PX)
            caption = f"{'boy' if male else 'girl'}, {subjects[at].boneage_months:g} months"
            break
    below = (2, _CELL_PX + _CAPTION_PX - 4)
    cv2.putText(cell, caption, below, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 230.0, 1, cv2.LINE_AA)
    return cell


def _band(subjects: Sequence[Subject], male: bool, band: int) -> list[int]:
    """Positions of the subjects of one sex in a band, youngest first."""
    low, high = band * _BAND_MONTHS, (band + 1) * _BAND_MONTHS + (band == _BANDS - 1)
    ages = {at: one.boneage_months for at, one in enumerate(subjects) if one.male is male}
    inside = [(months, at) for at, months in ages.items() if months is not None and low <= months < high]
    return [at for _, at in sorted(inside)]


def _from_the_middle(positions: list[int]) -> Iterator[int]:
    """The middle one first, then its neighbours: the next best where an image is missing or broken."""
    middle = len(positions) // 2
    yield from positions[middle:]
    yield from reversed(positions[:middle])
