"""Ages for the images of a pack by a saved model, in several views where asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_trainer import predict
from boneage_trainer.contract import ContractError
from boneage_trainer.feed import in_batches
from boneage_trainer.pack import Pack
from boneage_trainer.views import view

_BATCH = 128


def load(path: Path) -> Any:
    """The regressor at `path`: inputs ``image`` (b, px, px, 1) and perhaps ``male`` (b, 1), output months (b, 1).

    Raises:
        ContractError: no file, none that Keras can read, or a model of other inputs.
    """
    if not path.is_file():
        raise ContractError(f"there is no {path}; the trainer writes it when a run is complete")
    model = predict.load(path)
    names = [one.name for one in model.inputs]
    if names not in (["image"], ["image", "male"]):
        raise ContractError(f"{path} must have the inputs image and perhaps male, not {', '.join(names)}")
    return model


def of_pack(model: Any, pack: Pack, rows: Sequence[int], views: int) -> npt.NDArray[np.float32]:
    """Ages in months, float32 (views, n), in the order of `rows`; view 0 is the plain one.

    Raises:
        ContractError: the model takes images of another size.
    """
    wanted, given = model.inputs[0].shape[1], pack.images.shape[1]
    if wanted != given:
        raise ContractError(f"the model takes images of {wanted} px, the pack has {given} px; prepare one of that size")
    return np.concatenate([_of_batch(model, pack, some, views) for some in in_batches(rows, _BATCH)], axis=1)


def _of_batch(model: Any, pack: Pack, rows: npt.NDArray[np.intp], views: int) -> npt.NDArray[np.float32]:
    images, males = pack.images[rows], pack.male[rows]
    answers = [model.predict_on_batch(inputs(model, view(images, number), males)) for number in range(views)]
    return np.stack([np.asarray(months, np.float32)[:, 0] for months in answers])


def inputs(model: Any, images: npt.NDArray[np.uint8], males: npt.NDArray[np.float32]) -> list[Any]:
    """What `model` takes, for images (b, px, px) and male (b,) 1 or 0; sex is left out where it has no such input."""
    return [images[..., None], males[:, None]][: len(model.inputs)]
