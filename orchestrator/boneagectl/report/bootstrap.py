"""The bootstrap over radiographs: how sure a mean is, and how sure a difference between two runs on the same images.

Standard library only, so that a comparison needs no numpy; the trainer's own intervals come from numpy's draws and
differ from these in the second digit after the point.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from random import Random

DRAWS = 1000
_SEED = 0
_PER_MONTH = 1000
_LANE_BYTES = 8
_LANE_HIGH = 1 << 63

Interval = tuple[float, float]


def intervals(columns: Sequence[Sequence[float]]) -> list[Interval | None]:
    """The middle 95 % of the drawn means of each column; columns are equally long, a row is one radiograph.

    All columns see the same draws of rows. None where there are fewer than two rows, or values too large to count.
    """
    usable = [column for column in columns if _fits(column)]
    drawn = iter(_middle(means) for means in _drawn_means(usable))
    return [next(drawn) if _fits(column) else None for column in columns]


def _fits(column: Sequence[float]) -> bool:
    if len(column) < 2 or not all(map(math.isfinite, column)):
        return False
    return (max(column) - min(column)) * _PER_MONTH * len(column) < _LANE_HIGH


def _drawn_means(columns: Sequence[Sequence[float]]) -> list[list[float]]:
    """DRAWS means of each column.

    A row becomes one whole number with a lane for each column, in thousandths of a month above the column's lowest
    value. One addition then adds a radiograph to the sums of all runs: fifty runs cost what two do.
    """
    if not columns:
        return []
    count, random = len(columns[0]), Random(_SEED)  # noqa: S311
    lows = [round(min(column) * _PER_MONTH) for column in columns]
    lanes = struct.Struct(f"<{len(columns)}Q")
    rows = [_packed(lanes, row, lows) for row in zip(*columns, strict=True)]
    size = _LANE_BYTES * len(columns)
    sums = [lanes.unpack(sum(random.choices(rows, k=count)).to_bytes(size, "little")) for _ in range(DRAWS)]
    return [
        [(total / count + low) / _PER_MONTH for total in column]
        for column, low in zip(zip(*sums, strict=True), lows, strict=True)
    ]


def _packed(lanes: struct.Struct, row: Sequence[float], lows: Sequence[int]) -> int:
    values = (round(value * _PER_MONTH) - low for value, low in zip(row, lows, strict=True))
    return int.from_bytes(lanes.pack(*values), "little")


def _middle(means: list[float]) -> Interval:
    means.sort()
    return percentile(means, 2.5), percentile(means, 97.5)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` per cent of `ordered` lie, between two of them where need be."""
    place = (len(ordered) - 1) * share / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
