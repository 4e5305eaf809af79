"""Makes a synthetic data set in exactly the tree and csv of the Kaggle one, the same for the same seed.

    python -m boneage_trainer.synth DEST [--n 600] [--size-px 128] [--seed 1] [--workers N] [--json]

For trying out and testing: the pictures carry an age signal, but they are nobody's hands.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boneage_trainer.console import Progress, exit_code, naming, show, whole_number
from boneage_trainer.contract import ContractError, write_atomic
from boneage_trainer.hand import Image, Subject, draw
from boneage_trainer.pixels import Gray
from boneage_trainer.pool import spread

NAME = "boneage-training-dataset"
FIRST_ID = 1377
_MALE_SHARE = 0.54
_MEAN_MONTHS = {True: 135.0, False: 118.0}
_SD_MONTHS = 41.0
_HALF_YEARS = 0.78
"""Share of ages read off as whole half years, as the atlas has them; others hit one by chance."""


def synthesize(
    dest: Path, n: int = 600, size_px: int = 128, seed: int = 1, workers: int | None = None
) -> dict[str, Any]:
    """Makes `n` radiographs with their csv in `dest`, or finds them made.

    Raises:
        ContractError: `dest` holds something else.
        OSError: the disk is full or `dest` cannot be written.
    """
    started_s = time.monotonic()
    people = [subject(seed, id_) for id_ in _ids(n)]
    already = _is_there(dest, people, size_px, seed)
    if not already:
        _make(dest, people, size_px, seed, workers)
    male = sum(person.male for person in people)
    return {
        "dest": str(dest), "count": n, "male": male, "female": n - male, "image_size_px": size_px, "seed": seed,
        "already_made": already, "elapsed_s": round(time.monotonic() - started_s, 3),
    }  # fmt: skip


def _make(dest: Path, people: Sequence[Subject], size_px: int, seed: int, workers: int | None) -> None:
    """Under another name first, so that `dest` is either whole or not there."""
    partial = dest.with_name(dest.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    images = _images(partial)
    images.mkdir(parents=True)
    work = functools.partial(_write, folder=images, size_px=size_px, seed=seed)
    progress = Progress("drawn", len(people))
    for count in spread(work, _ids(len(people)), workers):
        progress.add(count)
    write_atomic(_csv(partial), csv_text(people))
    if dest.is_dir():
        dest.rmdir()  # empty, or it would have been refused
    partial.rename(dest)


def _write(ids: list[int], folder: Path, size_px: int, seed: int) -> int:
    for id_ in ids:
        path = folder / f"{id_}.png"
        with naming(path):
            path.write_bytes(png(seed, id_, size_px))
    return len(ids)


def _is_there(dest: Path, people: Sequence[Subject], size_px: int, seed: int) -> bool:
    """Whether `dest` holds this very set: csv, names, and first and last picture byte for byte."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return False
    images, ids = _images(dest), _ids(len(people))
    try:
        same = _csv(dest).read_text(encoding="utf-8") == csv_text(people)
        same = same and {file.name for file in images.iterdir()} == {f"{id_}.png" for id_ in ids}
        same = same and all((images / f"{at}.png").read_bytes() == png(seed, at, size_px) for at in (ids[0], ids[-1]))
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        raise ContractError(f"{dest} holds something else than this synthetic set; remove it or choose another folder")
    return True


def _ids(n: int) -> range:
    return range(FIRST_ID, FIRST_ID + n)


def _csv(root: Path) -> Path:
    return root / f"{NAME}.csv"


def _images(root: Path) -> Path:
    return root / NAME / NAME


def csv_text(people: Sequence[Subject]) -> str:
    lines = (f"{FIRST_ID + at},{person.boneage_months:g},{person.male}\n" for at, person in enumerate(people))
    return "id,boneage,male\n" + "".join(lines)


# ---------------------------------------------------------------------------------- one subject
def subject(seed: int, id_: int) -> Subject:
    """Sex, age and pose of `id_`, from (seed, id) alone: a larger set begins with the smaller one."""
    random = np.random.default_rng([seed, id_])
    male = bool(random.random() < _MALE_SHARE)
    months = _age(random, _MEAN_MONTHS[male])
    # Hands grow too, but a tall child is no old one: the jitter is wide against the trend.
    grown = 0.76 + 0.22 * min(1.0, months / 200)
    return Subject(
        male=male,
        boneage_months=months,
        spread=random.uniform(0.8, 1.5),
        stout=random.uniform(0.9, 1.12),
        size=grown * random.uniform(0.92, 1.05),
        turn_degrees=random.uniform(-14, 14),
        shift=(random.uniform(-0.05, 0.05), random.uniform(-0.01, 0.05)),
    )


def _age(random: np.random.Generator, mean_months: float) -> float:
    """Whole months in 1..228, most of them multiples of 6."""
    while True:
        months = random.normal(mean_months, _SD_MONTHS)
        months = 6 * round(months / 6) if random.random() < _HALF_YEARS else round(months)
        if 1 <= months <= 228:
            return float(months)


# ---------------------------------------------------------------------------------- one picture
def png(seed: int, id_: int, size_px: int) -> bytes:
    """The radiograph of `id_` as the bytes of an 8-bit gray PNG, (size_px, size_px)."""
    random = np.random.default_rng([seed, id_, size_px])
    hand = draw(subject(seed, id_), size_px)
    gray = _exposed(hand, random)
    _mark(gray, random)
    if random.random() < 0.2:
        _collimate(gray, random)
    done, data = cv2.imencode(".png", gray, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ContractError(f"OpenCV could not encode a PNG of {size_px} px")
    return bytes(data)


def _exposed(hand: Image, random: np.random.Generator) -> Gray:
    """Adds bone texture, ground, gain and noise; some rooms expose on light ground, some underexpose."""
    side_px = len(hand)
    coarse = random.normal(1, 0.10, (side_px // 4 + 1, side_px // 4 + 1)).astype(np.float32)
    texture = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    ground = random.uniform(70, 130) if random.random() < 0.15 else random.uniform(2, 22)
    gain = random.uniform(0.5, 0.75) if ground > 60 else random.choice([0.4, 0.9, 1.1, 1.25], p=[0.1, 0.3, 0.3, 0.3])
    slope = np.linspace(-1, 1, side_px, dtype=np.float32) * random.uniform(-6, 6)
    noise = random.normal(0, random.uniform(1, 4), hand.shape)
    return np.asarray(np.clip(np.rint(hand * texture * gain + ground + slope + noise), 0, 255), np.uint8)


def _mark(gray: Gray, random: np.random.Generator) -> None:
    """The lead letter L on a small plate, on the side of the little finger."""
    side_px = len(gray)
    tall_px = max(4, round(side_px * random.uniform(0.05, 0.08)))
    left, top = (round(side_px * random.uniform(low, high)) for low, high in ((0.03, 0.1), (0.05, 0.85)))
    plate = gray[top : top + round(1.5 * tall_px), left : left + tall_px]
    plate[:] = np.minimum(255, plate.astype(np.int64) + 25)
    stroke, inset = max(1, tall_px // 6), max(1, tall_px // 4)
    plate[inset : inset + tall_px, inset : inset + stroke] = 245
    plate[inset + tall_px - stroke : inset + tall_px, inset : inset + tall_px // 2] = 245


def _collimate(gray: Gray, random: np.random.Generator) -> None:
    """Blackens, or rarely whitens, a frame that the collimator kept dark."""
    side_px = len(gray)
    level = 250 if random.random() < 0.2 else random.integers(0, 12)
    top, bottom, left, right = np.rint(side_px * random.uniform(0.01, 0.06, 4)).astype(int)
    gray[:top] = gray[side_px - bottom :] = level
    gray[:, :left] = gray[:, side_px - right :] = level


# ----------------------------------------------------------------------------------- command line
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.synth", description=__doc__.split("\n")[0])
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder to make")
    parser.add_argument("--n", type=whole_number(1, 100_000), default=600, help="how many radiographs (600)")
    parser.add_argument("--size-px", type=whole_number(32, 2048), default=128, help="side of each (128)")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=1, help="another seed, other hands (1)")
    parser.add_argument("--workers", type=whole_number(1, 256), help="processes (one a core)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args(argv)

    def command() -> None:
        made = synthesize(given.dest, given.n, given.size_px, given.seed, given.workers)
        head = "already there" if made["already_made"] else "drawn"
        text = f"{head}: {made['count']:,} radiographs of {made['image_size_px']} px in {made['dest']}"
        show(made, f"{text} ({made['male']:,} boys, {made['female']:,} girls; {made['elapsed_s']:.1f} s)", given.json)

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
