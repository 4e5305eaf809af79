"""What the benchmarks share: full-size radiographs, clocks, and the entry each of them prints."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boneage_trainer.data.parallel import count_cores
from boneage_trainer.data.synth import radiograph_png

ROOT = Path(__file__).resolve().parents[1]
WIDTH_PX, HEIGHT_PX = 1514, 2044


# ------------------------------------------------------------------------------------- the files
def radiograph(id_: int) -> bytes:
    """A synthetic hand at the real size, with grain so that it packs to about a megabyte as real ones do."""
    small = cv2.imdecode(np.frombuffer(radiograph_png(1, id_, 512), np.uint8), cv2.IMREAD_GRAYSCALE)
    large = cv2.resize(small, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = np.random.default_rng(id_).normal(0, 0.6, large.shape)
    done, data = cv2.imencode(".png", np.clip(np.rint(large + grain), 0, 255).astype(np.uint8))
    assert done
    return bytes(data)


def make_tree(root: Path, folder: Path | None, count: int) -> list[str]:
    """`count` files, repeated if there are fewer, made distinct by four bytes that decoders do not read."""
    root.mkdir(parents=True)
    sources = [file.read_bytes() for file in sorted(folder.glob("*.png"))] if folder else []
    sources = sources or [radiograph(id_) for id_ in range(min(count, 40))]
    paths = [root / f"{at}.png" for at in range(count)]
    for at, path in enumerate(paths):
        path.write_bytes(sources[at % len(sources)] + at.to_bytes(4, "big"))
    lines = (f"{at},{months(at)},{at % 2 == 0}\n" for at in range(count))
    (root / "labels.csv").write_text("id,boneage,male\n" + "".join(lines))
    return [str(path) for path in paths]


def months(at: int) -> int:
    """An age for file number `at`; any age will do if they differ."""
    return 12 + 7 * at % 204


def add_file_options(parser: argparse.ArgumentParser, count: int) -> None:
    parser.add_argument("--folder", type=Path, help="full-size PNGs to use instead of synthetic ones")
    parser.add_argument("--n", type=int, default=count, help="how many images")


def kind_of_files(folder: Path | None) -> str:
    """What the files are, and how many differ: repeats take as long to decode, but are no data set."""
    if folder:
        return f"real PNGs ({len(list(folder.glob('*.png')))} different)"
    return f"synthetic {WIDTH_PX} x {HEIGHT_PX} PNGs"


# ------------------------------------------------------------------------------------- processes
def seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def environment() -> dict[str, str]:
    """Ours for a child process: this tree's packages, installed or not, and no talk of TensorFlow's."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("orchestrator", "trainer"))
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


# ------------------------------------------------------------------------------------- the entry
def entry(what: str, unit: str, **more: Any) -> dict[str, Any]:
    """What results.json keeps of one measurement; the command is this process', the folder's place left out."""
    return {"what": what, "unit": unit, **more, "command": _command(), "machine": machine(), "date": today()}


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _command() -> str:
    words = list(sys.argv[1:])
    for at, word in enumerate(words[:-1]):
        if word == "--folder":
            words[at + 1] = "PNGS"
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine() -> str:
    """E.g. "2 cores, AMD EPYC, no GPU"; asks no driver, so a GPU counts if its device file is there."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{count_cores()} cores, {model}, {'GPU' if Path('/dev/nvidia0').exists() else 'no GPU'}"


def show(entries: dict[str, dict[str, Any]]) -> None:
    json.dump(entries, sys.stdout)
    print()
