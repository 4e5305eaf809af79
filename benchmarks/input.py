"""An epoch's input, from full-size files to batches on the device, as the student paper did it and as we do.

    python benchmarks/input.py [--folder PNGS] [--n 200] [--size-px 224] [--rounds 3]

The other side is Keras' ImageDataGenerator and flow_from_dataframe, which decode each file in each epoch. Ours
reads the pack of the same files, made once beforehand; its seconds are in the entry. Both sides convert each
batch to a tensor and take its maximum. Rounds alternate, medians are compared; ours repeats its epoch for a second.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from common import add_file_options, entry, environment, kind_of_files, make_tree, months, seconds, show

from boneage_trainer.console import print_status
from boneage_trainer.contract import PackFolder
from boneage_trainer.data.pack import Pack, open_pack
from boneage_trainer.train.feed import Feed

os.environ.update({key: environment()[key] for key in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")})
import keras
import tensorflow as tf

BATCH = 32
AT_LEAST = {"plain": 500, "light": 100}
Epoch = Callable[[], Iterable[Any]]


# ------------------------------------------------------------------------------------- two sides
def feed(pack: Pack, light: bool, threads: int = 2) -> Feed:
    return Feed(pack, range(len(pack.ids)), BATCH, seed=1, augment=light, threads=threads)


def epochs_of(fed: Feed) -> Epoch:
    """A new epoch at each call."""
    numbers = itertools.count(1)
    return lambda: (images for _, images in fed.load_epoch(next(numbers)))


def generator(paths: list[str], size_px: int) -> Epoch:
    """As in the paper's script: nearest neighbour, three channels of float32."""
    frame = pd.DataFrame({"path": paths, "boneage": [float(months(at)) for at in range(len(paths))]})
    scaled = tf.keras.preprocessing.image.ImageDataGenerator(rescale=1 / 255)
    with contextlib.redirect_stdout(sys.stderr):  # it prints how many files it found
        made = scaled.flow_from_dataframe(
            frame, x_col="path", y_col="boneage", class_mode="raw", target_size=(size_px, size_px), batch_size=BATCH,
            shuffle=True, seed=1,
        )  # fmt: skip
    return lambda: (made[at][0] for at in range(len(made)))


def delivered(batches: Iterable[Any]) -> int:
    """Puts each batch on the device and uses it there; the number of images."""
    count = 0
    for images in batches:
        float(tf.reduce_max(tf.convert_to_tensor(images)))
        count += len(images)
    return count


def rate(epoch: Epoch, at_least_s: float) -> float:
    """Images a second over whole epochs, as many as fill `at_least_s`."""
    count, started_s = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started_s < at_least_s:
        count += delivered(epoch())
    return count / (time.perf_counter() - started_s)


# ------------------------------------------------------------------------- where to augment
def variants(pack: Pack, at_least_s: float) -> dict[str, float]:
    """Images a second of the same augmentation elsewhere: more or fewer threads, or Keras layers on the device."""
    found = {
        f"OpenCV, {threads} thread{'s'[: threads - 1]}": epochs_of(feed(pack, True, threads)) for threads in (1, 2)
    }
    found["Keras layers on the device"] = lambda: _by_layers(feed(pack, False))
    rates = {name: round(rate(epoch, at_least_s), 1) for name, epoch in found.items()}
    for name, figure in rates.items():
        print_status(f"{name}: {figure:,.0f} images/s")
    return rates


def _by_layers(fed: Feed) -> Iterator[Any]:
    return (_graph()(tf.convert_to_tensor(images)) for _, images in fed.load_epoch(1))


_MADE: list[Any] = []


def _graph() -> Any:
    """The layers as one compiled function, made at the first call."""
    if not _MADE:
        layers = keras.Sequential([
            keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(15 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.04, 0.04, fill_mode="nearest"),
            keras.layers.RandomZoom(0.12, fill_mode="nearest"), keras.layers.RandomBrightness(0.1),
            keras.layers.RandomContrast(0.15),
        ])  # fmt: skip
        _MADE.append(tf.function(lambda images: layers(tf.cast(images, tf.float32), training=True)))
    return _MADE[0]


# ------------------------------------------------------------------------------------- measuring
def prepared(tree: Path, pack: Path, size_px: int) -> None:
    """As a command: workers of this process would import TensorFlow, as its script does."""
    command = [sys.executable, "-m", "boneage_trainer.data.prepare", str(tree), "--out", str(pack)]
    subprocess.run([*command, "--size-px", str(size_px)], env=environment(), stdout=subprocess.DEVNULL, check=True)


def measure(paths: list[str], packs: Path, size_px: int, rounds: int, at_least_s: float) -> dict[str, Any]:
    """Median images a second of each side, and what making the pack took."""
    prepare_s = seconds(lambda: prepared(Path(paths[0]).parent, packs, size_px))
    pack = open_pack(packs, PackFolder(packs).read_card())
    sides = {"plain": epochs_of(feed(pack, False)), "light": epochs_of(feed(pack, True))}
    for epoch in sides.values():
        delivered(epoch())  # TensorFlow's first steps are none of the input's
    found: dict[str, list[float]] = {"other": [], "plain": [], "light": []}
    other = generator(paths, size_px)
    for at in range(rounds):
        for name, epoch in sides.items():
            found[name].append(rate(epoch, at_least_s))
        found["other"].append(rate(other, 0))
        print_status(
            f"round {at + 1}: " + ", ".join(f"{name} {rates[-1]:,.1f} images/s" for name, rates in found.items())
        )
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    return {**medians, "prepare_s": round(prepare_s, 2), "variants": variants(pack, at_least_s)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_file_options(parser, 200)
    parser.add_argument("--size-px", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="the shortest measurement of our side")
    given = parser.parse_args()
    cv2.setNumThreads(1)  # as in the trainer, whose feed has its own threads
    warnings.filterwarnings("ignore", module="keras")
    with tempfile.TemporaryDirectory() as place:
        paths = make_tree(Path(place) / "set", given.folder, given.n)
        found = measure(paths, Path(place) / "pack", given.size_px, given.rounds, given.seconds)
    what = f"an epoch's input from {given.n} {kind_of_files(given.folder)} at {given.size_px} px"
    names = {"plain": "without augmentation", "light": "with light augmentation"}
    show({f"input_{name}": _entry(found, name, f"{what}, {text}") for name, text in names.items()})


def _entry(found: dict[str, Any], name: str, what: str) -> dict[str, Any]:
    more = {"variants": found["variants"]} if name == "light" else {}
    return entry(
        f"{what}, against ImageDataGenerator (once: prepare, {found['prepare_s']} s)", "images/s",
        ours=round(found[name], 1), other=round(found["other"], 2), ratio=round(found[name] / found["other"], 1),
        at_least=AT_LEAST[name], prepare_s=found["prepare_s"], **more,
    )  # fmt: skip


if __name__ == "__main__":
    main()
