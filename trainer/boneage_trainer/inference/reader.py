"""Ages for many files: pictures are read ahead in threads while the model is at work on those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pixels import Gray
from boneage_trainer.inference import intake
from boneage_trainer.inference.model import Predictor, view
from boneage_trainer.train.device import find_device

BATCH = 32
_AHEAD = 2
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Request:
    """A file, and the sex where it is known: 1 male, 0 female."""

    file: Path
    male: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """`months` (views,), the plain view first; or `problem`, why there are none."""

    file: Path
    months: tuple[float, ...]
    problem: str = ""


class Reader:
    """Answers for pictures by `model`, averaged over `views`; `anyway`: whatever they show."""

    def __init__(self, model: Any, views: int, anyway: bool = False) -> None:
        self._size_px = model.inputs[0].shape[1]
        self._needs_sex = len(model.inputs) > 1
        self._views, self._anyway = views, anyway
        self._predict = Predictor(model, find_device())

    def answers(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        """In the order of `requests`, a batch at a time."""
        batches = [requests[at : at + BATCH] for at in range(0, len(requests), BATCH)]
        for some, squares in _ahead(batches, self._read):
            yield self._batch(some, squares)

    def _read(self, request: Request) -> Gray | str:
        """The picture, or why there is none."""
        if self._needs_sex and request.male is None:
            return "the model reads the sex as well, which nobody gave: --sex male, --sex female or --sexes FILE.csv"
        try:
            return intake.square_of(request.file, self._size_px, self._anyway)
        except ContractError as error:
            return str(error)

    def _batch(self, requests: Sequence[Request], squares: Sequence[Gray | str]) -> list[Answer]:
        good = [at for at, one in enumerate(squares) if not isinstance(one, str)]
        found: dict[int, tuple[float, ...]] = {}
        if good:
            males = np.array([[requests[at].male or 0.0] for at in good], np.float32)
            months = self._months(np.stack([squares[at] for at in good]), males)
            found = {at: tuple(map(float, months[:, number])) for number, at in enumerate(good)}
        return [
            Answer(request.file, found.get(at, ()), one if isinstance(one, str) else "")
            for at, (request, one) in enumerate(zip(requests, squares, strict=True))
        ]

    def _months(self, squares: Any, males: Any) -> Any:
        """float32 (views, n) for squares (n, px, px) and males (n, 1)."""
        sex = [males] if self._needs_sex else []
        answers = [self._predict([view(squares, number)[..., None], *sex]) for number in range(self._views)]
        return np.stack([answer[:, 0] for answer in answers])


def _ahead(
    batches: Iterable[Sequence[Request]], read: Callable[[Request], Gray | str]
) -> Iterator[tuple[Sequence[Request], list[Gray | str]]]:
    """Each batch with its pictures; the next ones are read meanwhile."""
    waiting: deque[tuple[Sequence[Request], list[Future[Gray | str]]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for some in batches:
                waiting.append((some, [pool.submit(read, one) for one in some]))
                if len(waiting) > _AHEAD:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _first(
    waiting: deque[tuple[Sequence[Request], list[Future[Gray | str]]]],
) -> tuple[Sequence[Request], list[Gray | str]]:
    some, futures = waiting.popleft()
    return some, [future.result() for future in futures]
