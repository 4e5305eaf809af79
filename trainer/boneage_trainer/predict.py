"""Ages for image files, by a trained model and the same steps that made its pack.

    python -m boneage_trainer.predict MODEL.keras IMAGE... [--sex male|female] [--views N] [--json]

For research and education only; not a medical device.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.console import exit_code, say, show, whole_number
from boneage_trainer.contract import RESEARCH_ONLY, ContractError
from boneage_trainer.pixels import square_from
from boneage_trainer.views import MOST, view


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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.predict", description=RESEARCH_ONLY)
    parser.add_argument("model", type=Path, help="model.keras, or the run folder that holds it")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG or JPEG")
    parser.add_argument("--sex", choices=("male", "female"), help="of all the images; needed if the model reads it")
    parser.add_argument("--views", type=whole_number(1, MOST), default=1, help="how many views to average (1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)

    def command() -> None:
        model = load(given.model / "model.keras" if given.model.is_dir() else given.model)
        squares = squares_of(given.images, model.inputs[0].shape[1])
        male = None if given.sex is None else float(given.sex == "male")
        months = [round(float(age), 2) for age in predict(model, squares, male, given.views)]
        say(RESEARCH_ONLY)
        rows = [{"file": str(file), "months": age} for file, age in zip(given.images, months, strict=True)]
        text = "\n".join(f"{row['months']:7.1f} months  {row['file']}" for row in rows)
        show({"predictions": rows, "research_only": RESEARCH_ONLY}, text, given.json)

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
