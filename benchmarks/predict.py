"""Images per second of `predict`, against a bare loop of Keras' own `model.predict` over decoded images.

    python benchmarks/predict.py [--n 200] [--size-px 224] [--preset fast] [--rounds 5] [--folder PNGS]

Ours reads, checks and prepares each file on the way; the other side has the same images in memory already. Both load
and trace the model before, use batches of 32 and one view. Rounds alternate, medians are compared. The files are
synthetic hands of the network's own size; with --folder, full-size radiographs, whose decoding is most of the work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import entry, environment, make_tree, seconds, show

from boneage_trainer.console import print_status
from boneage_trainer.contract import TrainConfig
from boneage_trainer.data.synth import radiograph_png

os.environ.update({key: environment()[key] for key in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")})
from boneage_trainer.inference.intake import load_square
from boneage_trainer.inference.model import BATCH
from boneage_trainer.inference.reader import FilePredictor, FileRequest
from boneage_trainer.train import model

AT_LEAST = 0.9


def network(preset: str, size_px: int) -> Any:
    config = TrainConfig.from_mapping({"preset": preset}).without_weights()
    return model.build_networks(config, size_px, np.array([20, 200], np.float32), Path(), "float32").full


def files(scratch: Path, folder: Path | None, count: int, size_px: int) -> list[Path]:
    if folder:
        return [Path(path) for path in make_tree(scratch / "set", folder, count)]
    paths = [scratch / f"{at}.png" for at in range(count)]
    for at, path in enumerate(paths):
        path.write_bytes(radiograph_png(1, at, size_px))
    return paths


def bare(network: Any, images: Any, males: Any) -> None:
    """The loop of a typical notebook."""
    for at in range(0, len(images), BATCH):
        inputs = [images[at : at + BATCH], males[at : at + BATCH]][: len(network.inputs)]
        network.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)


def ours(predictor: FilePredictor, requests: list[FileRequest]) -> None:
    problems = [answer.problem for batch in predictor.predict(requests) for answer in batch if answer.problem]
    assert not problems, problems[0]


def measure(paths: list[Path], preset: str, size_px: int, rounds: int) -> dict[str, float]:
    """Median images per second of each side."""
    net = network(preset, size_px)
    predictor, requests = FilePredictor(net, 1), [FileRequest(path, 1.0) for path in paths]
    images = np.stack([load_square(path, size_px, accept_any=True) for path in paths])[..., None]
    males = np.ones((len(paths), 1), np.float32)
    sides = {"ours": lambda: ours(predictor, requests), "other": lambda: bare(net, images, males)}
    for work in sides.values():
        work()  # traces
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for at in range(rounds):
        for name, work in sides.items():
            rates[name].append(len(paths) / seconds(work))
        print_status(
            f"round {at + 1}: " + ", ".join(f"{name} {values[-1]:,.1f} images/s" for name, values in rates.items())
        )
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=200, help="how many images")
    parser.add_argument("--size-px", type=int, default=224, help="side of the network's images")
    parser.add_argument("--preset", default="fast", help="preset of the network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="full-size PNGs to use instead of synthetic ones of the network's size"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = files(Path(scratch), options.folder, options.n, options.size_px)
        rates = measure(paths, options.preset, options.size_px, options.rounds)
    kind = "full-size PNGs" if options.folder else "PNGs"
    what = f"predicting {options.n} {kind} at {options.size_px} px by the network of {options.preset}, from the files,"
    name = "predict_full_size" if options.folder else "predict"
    bar = {} if options.folder else {"at_least": AT_LEAST}
    show({name: entry(
        f"{what} against a bare model.predict loop over the decoded images", "images/s", ours=round(rates["ours"], 1),
        other=round(rates["other"], 1), ratio=round(rates["ours"] / rates["other"], 3), **bar,
    )})  # fmt: skip


if __name__ == "__main__":
    main()
