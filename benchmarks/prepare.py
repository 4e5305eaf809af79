"""Prepare against Pillow on the same full-size files, two processes each, in one run.

    python benchmarks/prepare.py [--folder PNGS] [--n 400] [--size-px 128] [--rounds 3]

Without a folder it makes 40 radiographs of 1514 x 2044 px. Prints one JSON object; images a second,
the whole command each time: starting the processes, reading, decoding, shrinking, collecting and, for
ours, hashing and writing the pack. The rounds alternate and the medians are compared.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from boneage_trainer.console import say
from boneage_trainer.pool import spread
from boneage_trainer.prepare import prepare
from boneage_trainer.synth import png

WORKERS = 2
WIDTH_PX, HEIGHT_PX = 1514, 2044


def radiograph(id_: int) -> bytes:
    """A synthetic hand at the real size, with grain so that it packs to about a megabyte as real ones do."""
    small = cv2.imdecode(np.frombuffer(png(1, id_, 512), np.uint8), cv2.IMREAD_GRAYSCALE)
    large = cv2.resize(small, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = np.random.default_rng(id_).normal(0, 0.6, large.shape)
    done, data = cv2.imencode(".png", np.clip(np.rint(large + grain), 0, 255).astype(np.uint8))
    assert done
    return bytes(data)


def make_tree(root: Path, folder: Path | None, count: int) -> list[str]:
    """`count` files, repeated where there are fewer, told apart by four bytes that decoders do not read."""
    sources = [file.read_bytes() for file in sorted(folder.glob("*.png"))] if folder else []
    sources = sources or [radiograph(id_) for id_ in range(40)]
    paths = [root / f"{at}.png" for at in range(count)]
    for at, path in enumerate(paths):
        path.write_bytes(sources[at % len(sources)] + at.to_bytes(4, "big"))
    (root / "labels.csv").write_text("id,boneage,male\n" + "".join(f"{at},120,True\n" for at in range(count)))
    return [str(path) for path in paths]


def with_pillow(paths: list[str], size_px: int) -> list[bytes]:
    return [_lanczos(path, size_px) for path in paths]


def _lanczos(path: str, size_px: int) -> bytes:
    with Image.open(path) as image:
        scale = size_px / max(image.size)
        fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.convert("L").resize(fitted, Image.Resampling.LANCZOS).tobytes()


def seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def measure(folder: Path | None, count: int, size_px: int, rounds: int) -> dict[str, float]:
    ours_s, other_s = [], []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "set"
        root.mkdir()
        paths = make_tree(root, folder, count)
        pillow = functools.partial(with_pillow, size_px=size_px)
        for at in range(rounds):
            out = Path(place) / f"pack-{at}"
            ours_s.append(seconds(functools.partial(prepare, root, out, size_px, workers=WORKERS)))
            other_s.append(seconds(lambda: list(spread(pillow, paths, WORKERS))))
            say(f"round {at + 1}: ours {ours_s[-1]:.2f} s, Pillow {other_s[-1]:.2f} s")
    ours, other = count / statistics.median(ours_s), count / statistics.median(other_s)
    return {"ours": round(ours, 1), "other": round(other, 1), "ratio": round(ours / other, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="full-size PNGs to use instead of synthetic ones")
    parser.add_argument("--n", type=int, default=400, help="how many images")
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    kind = "real" if given.folder else "synthetic 1514 x 2044"
    options = f"{'--folder PNGS ' if given.folder else ''}--n {given.n} --size-px {given.size_px}"
    result = {
        **measure(given.folder, given.n, given.size_px, given.rounds),
        "unit": "images/s",
        "what": f"{given.n} {kind} PNGs to {given.size_px} px, {WORKERS} processes, against Pillow LANCZOS",
        "command": f"python benchmarks/prepare.py {options} --rounds {given.rounds}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    json.dump({"prepare": result}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
