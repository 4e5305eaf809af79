"""What a frozen backbone makes of the images, computed once and trained from as often as wanted."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]
_MEMORY_SHARE = 0.25
_DISK_SHARE = 0.8


@dataclass(slots=True)
class Features:
    """`array` (n, ...) holds the features of n images; `features[rows]` finds those of pack rows by `place`."""

    array: Any
    place: dict[int, int]

    def __getitem__(self, rows: Sequence[int] | Rows) -> Any:
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
