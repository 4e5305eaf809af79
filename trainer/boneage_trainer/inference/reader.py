"""Predictions for image files: the next files are read in threads while the model predicts those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pixels import Gray
from boneage_trainer.inference import intake
from boneage_trainer.inference.model import BATCH, AgePredictor

_BATCHES_AHEAD = 2
_THREADS = 2
_Loaded = Gray | str
"""A square image, or the reason why there is none."""


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A file to predict, and the sex if known: 1 male, 0 female."""

    file: Path
    male: float | None


@dataclass(frozen=True, slots=True)
class FilePrediction:
    """`months` (views,), the plain view first; or `problem`, the reason why there are none."""

    file: Path
    months: tuple[float, ...]
    problem: str = ""


class FilePredictor:
    """Predicts files with `model` in `views` views each; `accept_any` skips the check that they show a hand."""

    def __init__(self, model: Any, views: int, accept_any: bool = False) -> None:
        self._predictor = AgePredictor(model)
        self._views, self._accept_any = views, accept_any

    def predict(self, requests: Sequence[FileRequest]) -> Iterator[list[FilePrediction]]:
        """Yields predictions in the order of `requests`, a batch at a time."""
        waiting: deque[tuple[Sequence[FileRequest], list[Future[_Loaded]]]] = deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for start in range(0, len(requests), BATCH):
                    batch = requests[start : start + BATCH]
                    waiting.append((batch, [pool.submit(self._load, request) for request in batch]))
                    if len(waiting) > _BATCHES_AHEAD:
                        yield self._predict_batch(*waiting.popleft())
                while waiting:
                    yield self._predict_batch(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _load(self, request: FileRequest) -> _Loaded:
        if self._predictor.needs_sex and request.male is None:
            return "sex is required (--sex or --sexes)"
        try:
            return intake.load_square(request.file, self._predictor.size_px, self._accept_any)
        except ContractError as error:
            return str(error)

    def _predict_batch(
        self, requests: Sequence[FileRequest], futures: Sequence[Future[_Loaded]]
    ) -> list[FilePrediction]:
        loaded = [future.result() for future in futures]
        usable = [at for at, image in enumerate(loaded) if not isinstance(image, str)]
        predicted: dict[int, tuple[float, ...]] = {}
        if usable:
            images = np.stack([np.asarray(loaded[at]) for at in usable])
            males = np.array([requests[at].male or 0.0 for at in usable], np.float32)
            months = self._predictor.predict(images, males, self._views)
            predicted = {at: tuple(map(float, views)) for at, views in zip(usable, months.T, strict=True)}
        return [
            FilePrediction(request.file, predicted.get(at, ()), image if isinstance(image, str) else "")
            for at, (request, image) in enumerate(zip(requests, loaded, strict=True))
        ]
