"""Ages by a trained model, for images made by the same steps that made its pack."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import ContractError
from boneage_trainer.pixels import square_from
from boneage_trainer.views import view


def load(path: Path) -> Any:
    """The Keras model at `path`; raises ContractError where there is none."""
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ContractError(f"{path} is no model that Keras can load: {' '.join(str(error).split())[:200]}") from None


def predict(model: Any, squares: Any, male: float | None, views: int = 1) -> Any:
    """Ages in months, float32 (n,), for gray squares (n, px, px) uint8; `male` is 1 or 0, None if not known.

    Raises:
        ContractError: the model needs the sex and it is not known.
    """
    names = [tensor.name for tensor in model.inputs]
    if "male" in names and male is None:
        raise ContractError("this model reads the sex as well as the image: give --sex male or --sex female")
    sex = [np.full((len(squares), 1), male, np.float32)] if "male" in names else []
    answers = []
    for number in range(views):
        images = view(squares, number)[..., None]
        answers.append(np.asarray(model.predict_on_batch([images, *sex] if sex else images))[:, 0])
    return np.mean(answers, axis=0)


def squares_of(files: Sequence[Path], size_px: int) -> Any:
    """The images in `files` as `data prepare` makes them, uint8 (n, px, px).

    Raises:
        ContractError: a file is broken or no image.
        OSError: a file cannot be read.
    """
    made = []
    for file in files:
        square = square_from(file.read_bytes(), size_px)
        if square is None:
            raise ContractError(f"{file} is broken, cut short or no image that OpenCV reads")
        made.append(square)
    return np.stack(made)
