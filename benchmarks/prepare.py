"""Prepare against Pillow on the same full-size files, two processes each, in one run.

    python benchmarks/prepare.py [--folder PNGS] [--n 400] [--size-px 128] [--rounds 3]

Without a folder it makes 40 radiographs of 1514 x 2044 px. Prints one JSON object; images a second,
the whole command each time: starting the processes, reading, decoding, scaling, collecting and, for
ours, hashing and writing the pack. The rounds alternate and the medians are compared. Also measured: how far
each side's pixels are from the exact area average, in gray levels.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import add_file_options, entry, kind_of_files, make_tree, seconds, show
from PIL import Image

from boneage_trainer.console import print_status
from boneage_trainer.data.parallel import map_chunks
from boneage_trainer.data.pixels import box_filter, decode_gray
from boneage_trainer.data.prepare import prepare

WORKERS = 2
AT_LEAST = 1.4


# ------------------------------------------------------------------------------------- the speed
def with_pillow(paths: list[str], size_px: int) -> list[bytes]:
    return [_lanczos(path, size_px) for path in paths]


def _lanczos(path: str, size_px: int) -> bytes:
    with Image.open(path) as image:
        return image.convert("L").resize(fitted(image.size, size_px), Image.Resampling.LANCZOS).tobytes()


def fitted(size: tuple[int, int], size_px: int) -> tuple[int, int]:
    scale = size_px / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def measure(folder: Path | None, count: int, size_px: int, rounds: int) -> dict[str, Any]:
    ours_s, other_s = [], []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "set"
        paths = make_tree(root, folder, count)
        pillow = functools.partial(with_pillow, size_px=size_px)
        for at in range(rounds):
            out = Path(place) / f"pack-{at}"
            ours_s.append(seconds(functools.partial(prepare, root, out, size_px, workers=WORKERS)))
            other_s.append(seconds(lambda: list(map_chunks(pillow, paths, WORKERS))))
            print_status(f"round {at + 1}: ours {ours_s[-1]:.2f} s, Pillow {other_s[-1]:.2f} s")
        far = errors(paths[:10], size_px)
    ours, other = count / statistics.median(ours_s), count / statistics.median(other_s)
    figures = {"ours": round(ours, 1), "other": round(other, 1), "ratio": round(ours / other, 2)}
    return {**figures, "error_p999_gray_levels": far}


# ------------------------------------------------------------------------------------- the pixels
def errors(paths: list[str], size_px: int) -> dict[str, float]:
    """Of 1000 pixels 999 are nearer than this to the exact average of what they cover, in gray levels."""
    found: dict[str, list[npt.NDArray[np.float64]]] = {"ours": [], "other": []}
    for path in paths:
        gray = decode_gray(Path(path).read_bytes())
        assert gray is not None
        width, height = fitted((gray.shape[1], gray.shape[0]), size_px)
        exact = _shares(gray.shape[0], height) @ gray.astype(np.float64) @ _shares(gray.shape[1], width).T
        lanczos = np.frombuffer(_lanczos(path, size_px), np.uint8).reshape(height, width)
        found["ours"].append(np.abs(box_filter(gray, height, width) - exact).ravel())
        found["other"].append(np.abs(lanczos - exact).ravel())
    return {side: round(float(np.quantile(np.concatenate(far), 0.999)), 2) for side, far in found.items()}


def _shares(source_px: int, target_px: int) -> npt.NDArray[np.float64]:
    """(target_px, source_px): how much of each target cell a source pixel covers; rows sum to 1."""
    borders = np.arange(target_px + 1) * (source_px / target_px)
    pixels = np.arange(source_px)
    low = np.maximum(borders[:-1, None], pixels)
    high = np.minimum(borders[1:, None], pixels + 1)
    return np.maximum(high - low, 0) * target_px / source_px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_file_options(parser, 400)
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found = measure(given.folder, given.n, given.size_px, given.rounds)
    far = found["error_p999_gray_levels"]
    what = (
        f"{given.n} {kind_of_files(given.folder)} to {given.size_px} px, {WORKERS} processes, against Pillow "
        f"LANCZOS (99.9 % of pixels within {far['ours']} gray levels of the exact average; Pillow {far['other']})"
    )
    show({"prepare": entry(what, "images/s", **found, at_least=AT_LEAST)})


if __name__ == "__main__":
    main()
