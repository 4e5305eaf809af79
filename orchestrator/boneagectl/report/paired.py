"""The bootstrap over radiographs: how sure a mean is, and how sure a difference between two runs on the same images.

Standard library only, so that a comparison needs no numpy; the trainer's own intervals come from numpy's draws and
differ from these in the second digit after the point.
"""

from __future__ import annotations

import csv
import functools
import math
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from random import Random

from boneage_trainer.contract import RunFolder
from boneagectl.report.data import to_months

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


# == tested: What a run was tested on, and two runs' errors on the images both have: matched by id and content.

Key = tuple[str, str]
"""An image's id, and the first digits of its sha256 as ``split.csv`` has them."""
Answers = Mapping[Key, tuple[float, float]]
"""Label and prediction in months, by image."""
_SAME_LABEL_MONTHS = 0.01


@dataclass(frozen=True, slots=True)
class Tested:
    """A run's test images; `why` says why there are none."""

    answers: Answers
    why: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """How a run's absolute errors differ from the first run's, image by image; below zero the run errs less.

    `n` of its `own` and of the first's `firsts` test images are in both; `relabelled` of them have another label in
    one run and count in neither. The difference is None where there is nothing to compare, `why` then says why.
    """

    run_id: str
    n: int
    own: int
    firsts: int
    relabelled: int
    difference_months: float | None = None
    ci95_months: Interval | None = None
    improved_share: float | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        if self.ci95_months is None:
            return self.why or "too few images to tell"
        low, high = self.ci95_months
        return "errs less" if high < 0 else "errs more" if low > 0 else "no difference shown"


def read_tested(folder: RunFolder) -> Tested:
    """The test images of the run in `folder`."""
    rows = _rows(folder.predictions, ("id", "split", "boneage_months", "predicted_months"))
    answers = {id_: (to_months(label), to_months(guess)) for id_, split, label, guess in rows if split == "test"}
    if not answers:
        return Tested({}, "it has no test predictions yet")
    if not folder.split.is_file():
        return Tested({}, "it has no split.csv, so nobody knows which images these were")
    hashes = _hashes(folder.split.read_text(encoding="utf-8"))
    return Tested({(id_, hashes[id_]): answer for id_, answer in answers.items() if id_ in hashes})


def _rows(path: Path, names: Sequence[str]) -> list[list[str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return _columns(csv.reader(stream), names)


def _columns(reader: object, names: Sequence[str]) -> list[list[str]]:
    """The columns `names` of each row; several times as quick as one mapping a row."""
    header, *rows = list(reader) or [[]]  # type: ignore[call-overload]
    if not set(names) <= set(header):
        return []
    places = [header.index(name) for name in names]
    return [[row[place] for place in places] for row in rows if len(row) == len(header)]


@functools.lru_cache(maxsize=4)
def _hashes(text: str) -> dict[str, str]:
    """The digits by id of a ``split.csv``'s test images; runs on the same split have the same text."""
    rows = _columns(csv.reader(text.splitlines()), ("id", "split", "sha256"))
    return {id_: sha256 for id_, split, sha256 in rows if split == "test" and sha256}


# ------------------------------------------------------------------------------------ pairs
def pairs(tested: Sequence[tuple[str, Tested]]) -> list[Pair]:
    """Each run against the first; those with the same common images share their draws, and the time they take."""
    (_, first), *others = tested
    found = [_common(run_id, first, one) for run_id, one in others]
    groups: dict[tuple[Key, ...], list[int]] = defaultdict(list)
    for place, (_, keys, _) in enumerate(found):
        groups[keys].append(place)
    drawn: dict[int, Interval | None] = {}
    for places in groups.values():
        drawn.update(zip(places, intervals([found[place][2] for place in places]), strict=True))
    return [_pair(pair, differences, drawn[place]) for place, (pair, _, differences) in enumerate(found)]


def _common(run_id: str, first: Tested, other: Tested) -> tuple[Pair, tuple[Key, ...], list[float]]:
    """A pair still without figures, its common images, and the differences of their absolute errors in months."""
    both = [key for key in first.answers if key in other.answers]
    sizes = [(first.answers[key], other.answers[key]) for key in both]
    same = [abs(one[0] - two[0]) < _SAME_LABEL_MONTHS for one, two in sizes]
    differences = [abs(two[1] - two[0]) - abs(one[1] - one[0]) for one, two in compress(sizes, same)]
    why = f"the first run: {first.why}" if first.why else other.why
    if not why and not differences:
        why = "no test image is in both with the same label"
    if not all(map(math.isfinite, differences)):
        why, differences = "a prediction is no number", []
    counts = (len(differences), len(other.answers), len(first.answers), same.count(False))
    return Pair(run_id, *counts, why=why), tuple(compress(both, same)) if differences else (), differences


def _pair(pair: Pair, differences: Sequence[float], interval: Interval | None) -> Pair:
    if not differences:
        return pair
    closer = sum(one < 0 for one in differences) / len(differences)
    mean = math.fsum(differences) / len(differences)
    counts = (pair.n, pair.own, pair.firsts, pair.relabelled)
    return Pair(pair.run_id, *counts, mean, interval, closer)
