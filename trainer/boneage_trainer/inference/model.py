"""Ages for the images of a pack by a saved model, in several views where asked."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.pixels import decode_square
from boneage_trainer.train.device import Device
from boneage_trainer.train.feed import split_batches

_BATCH = 128


def load(path: Path) -> Any:
    """The regressor at `path`: inputs ``image`` (b, px, px, 1) and perhaps ``male`` (b, 1), output months (b, 1).

    Raises:
        ContractError: no file, none that Keras can read, or a model of other inputs.
    """
    if not path.is_file():
        raise ContractError(f"there is no {path}; the trainer writes it when a run is complete")
    model = predict_load(path)
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
    return np.concatenate([_of_batch(model, pack, some, views) for some in split_batches(rows, _BATCH)], axis=1)


def _of_batch(model: Any, pack: Pack, rows: npt.NDArray[np.intp], views: int) -> npt.NDArray[np.float32]:
    images, males = pack.images[rows], pack.male[rows]
    answers = [model.predict_on_batch(inputs(model, view(images, number), males)) for number in range(views)]
    return np.stack([np.asarray(months, np.float32)[:, 0] for months in answers])


def inputs(model: Any, images: npt.NDArray[np.uint8], males: npt.NDArray[np.float32]) -> list[Any]:
    """What `model` takes, for images (b, px, px) and male (b,) 1 or 0; sex is left out where it has no such input."""
    return [images[..., None], males[:, None]][: len(model.inputs)]


# == predictor: A model's answers for batches of images or features, on all devices of this machine.


def of_model(model: Any, inputs: Sequence[Any], training: bool) -> Any:
    """The answer of `model` to a sequence of inputs, which may have one member."""
    return model(list(inputs) if len(inputs) > 1 else inputs[0], training=training)


class Predictor:
    """Answers batch by batch; shorter ones are filled up, so that the model is traced for one size only."""

    def __init__(self, model: Any, device: Device) -> None:
        self._device, self._size = device, 0

        @tf.function(jit_compile=device.jit and not device.strategy)  # type: ignore[untyped-decorator]
        def one(inputs: Any) -> Any:
            return of_model(model, inputs, training=False)

        self._run = tf.function(lambda given: device.strategy.run(one, args=(given,))) if device.strategy else one

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """The answers (b, ...) to `inputs`, each (b, ...), as an array."""
        count, local = len(inputs[0]), self._device.local
        self._size = max(self._size, -(-count // local) * local)
        full = tuple(_filled(one, self._size) for one in inputs)
        if not self._device.strategy:
            return np.asarray(self._run(tuple(tf.convert_to_tensor(one) for one in full)))[:count]
        answers = self._device.strategy.experimental_local_results(self._run(self._pieces(full)))
        return np.concatenate([np.asarray(answer) for answer in answers])[:count]

    def _pieces(self, full: tuple[Any, ...]) -> Any:
        """Every machine answers for the whole batch, and cuts it over its own devices."""
        size = self._size // self._device.local

        def piece(context: Any) -> Any:
            at = context.replica_id_in_sync_group % self._device.local * size
            return tuple(tf.convert_to_tensor(one[at : at + size]) for one in full)

        return self._device.strategy.experimental_distribute_values_from_function(piece)


def _filled(array: Any, size: int) -> Any:
    """`array` with its last member repeated until there are `size`."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


# == views: Views of a test image: the same hand mirrored, turned and scaled a little, for predictions to be

Images = npt.NDArray[np.uint8]

# Mirrored or not, degrees, scale: each plain one is followed by its mirror image, so even counts are balanced.
_VIEWS = tuple(
    (mirrored, turn, scale)
    for turn, scale in ((0.0, 1.0), (8.0, 1.0), (-8.0, 1.0), (0.0, 1.06), (0.0, 0.95))
    for mirrored in (False, True)
)
MOST = len(_VIEWS)


def view(images: Images, number: int) -> Images:
    """View `number` (0 to 9; 0 is the image itself) of `images` (b, px, px); the same on every call."""
    mirrored, turn, scale = _VIEWS[number]
    if mirrored:
        images = images[:, :, ::-1]
    if (turn, scale) != (0.0, 1.0):
        images = np.stack([_turned(image, turn, scale) for image in images])
    return np.ascontiguousarray(images)


def _turned(image: Images, turn: float, scale: float) -> Images:
    middle = (image.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), turn, scale)
    size = (image.shape[1], image.shape[0])
    turned = cv2.warpAffine(
        np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)


# == predict: Ages by a trained model, for images made by the same steps that made its pack.


def predict_load(path: Path) -> Any:
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
        square = decode_square(file.read_bytes(), size_px)
        if square is None:
            raise ContractError(f"{file} is broken, cut short or no image that OpenCV reads")
        made.append(square)
    return np.stack(made)
