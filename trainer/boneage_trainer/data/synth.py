"""Makes a synthetic dataset with the same folders and csv as the Kaggle one; the same seed makes the same bytes.

    python -m boneage_trainer.data.synth DEST [--n 600] [--size-px 128] [--seed 1] [--workers N] [--json]

For trying out and testing: a left hand is drawn as a radiograph shows it, and its bones follow the age, but no
picture is of a real hand.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.console import ProgressLine, attach_path, int_in_range, print_result, run_command
from boneage_trainer.contract import ContractError, format_csv, write_atomic
from boneage_trainer.data.parallel import map_chunks
from boneage_trainer.data.pixels import Gray, box_filter

NAME = "boneage-training-dataset"
FIRST_ID = 1377
_MALE_SHARE = 0.54
_MEAN_MONTHS = {True: 135.0, False: 118.0}
_SD_MONTHS = 41.0
_HALF_YEARS = 0.78
"""Share of ages that are whole half years, as in the atlas; other ages are one by chance."""
Points = npt.NDArray[np.float64]
HandImage = npt.NDArray[np.float32]

ADULT_MONTHS = {True: 222.0, False: 194.0}
"""Age at which the last growth plate has closed, by `male`."""

_SUBPIXEL_BITS = 4
_SOFT, _BONE, _CORTEX = 74, 64, 106


class Ray(NamedTuple):
    """A metacarpal and its phalanges: its start, its angle (right of upright), the lengths of its bones."""

    base: tuple[float, float]
    degrees: float
    lengths: tuple[float, ...]
    half_width: float


_RAYS = (
    Ray((-0.095, -0.120), -15, (0.225, 0.160, 0.095, 0.080), 0.0215),
    Ray((-0.047, -0.140), -7, (0.250, 0.205, 0.135, 0.088), 0.0235),
    Ray((0.010, -0.150), 0, (0.280, 0.220, 0.150, 0.092), 0.0250),
    Ray((0.068, -0.145), 8, (0.290, 0.200, 0.120, 0.084), 0.0250),
    Ray((0.108, -0.075), 40, (0.190, 0.145, 0.105), 0.0270),
)
_CARPALS = (  # x, y, half width, half height, maturity at which the nucleus appears
    (0.012, -0.102, 0.029, 0.043, 0.02),  # capitate
    (-0.043, -0.094, 0.030, 0.036, 0.03),  # hamate
    (-0.058, -0.045, 0.024, 0.027, 0.15),  # triquetrum
    (-0.008, -0.037, 0.027, 0.026, 0.23),  # lunate
    (0.050, -0.044, 0.027, 0.034, 0.31),  # scaphoid
    (0.094, -0.062, 0.024, 0.027, 0.33),  # trapezium
    (0.058, -0.100, 0.021, 0.025, 0.35),  # trapezoid
    (-0.066, -0.058, 0.015, 0.017, 0.55),  # pisiform
)
_FOREARM = (  # x, half width at the wrist and further up, maturity at which the epiphysis appears
    (0.040, 0.052, 0.030, 0.07),  # radius
    (-0.050, 0.030, 0.022, 0.38),  # ulna
)


@dataclass(frozen=True, slots=True)
class SyntheticSubject:
    """Sex, age and pose of a synthetic hand; `spread` and `stout` are factors around 1."""

    male: bool
    boneage_months: float
    spread: float = 1.0
    stout: float = 1.0
    size: float = 1.0
    turn_degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def maturity(self) -> float:
        """0 at birth, 1 where growth has ended."""
        return min(1.0, self.boneage_months / ADULT_MONTHS[self.male])


def synthesize(
    dest: Path, n: int = 600, size_px: int = 128, seed: int = 1, workers: int | None = None
) -> dict[str, Any]:
    """Makes `n` radiographs and their csv in `dest`, unless they are there already.

    Raises:
        ContractError: `dest` holds something else.
        OSError: the disk is full or `dest` cannot be written.
    """
    started_s = time.monotonic()
    ids = range(FIRST_ID, FIRST_ID + n)
    subjects = [draw_subject(seed, id_) for id_ in ids]
    already_made = _is_made(dest, subjects, size_px, seed)
    if not already_made:
        # Under another name first, so that `dest` is either complete or not there.
        partial = dest.with_name(dest.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _image_folder(partial).mkdir(parents=True)
        work = functools.partial(_write_images, folder=_image_folder(partial), size_px=size_px, seed=seed)
        progress = ProgressLine("drawn", n)
        for count in map_chunks(work, ids, workers):
            progress.add(count)
        write_atomic(partial / f"{NAME}.csv", format_labels(subjects))
        if dest.is_dir():
            dest.rmdir()  # empty, or it would have been refused
        partial.rename(dest)
    male = sum(subject.male for subject in subjects)
    return {
        "dest": str(dest), "count": n, "male": male, "female": n - male, "image_size_px": size_px, "seed": seed,
        "already_made": already_made, "elapsed_s": round(time.monotonic() - started_s, 3),
    }  # fmt: skip


def _write_images(ids: list[int], folder: Path, size_px: int, seed: int) -> int:
    """Writes the radiographs of `ids`; runs in the worker processes. Returns how many."""
    for id_ in ids:
        path = folder / f"{id_}.png"
        with attach_path(path):
            path.write_bytes(radiograph_png(seed, id_, size_px))
    return len(ids)


def _is_made(dest: Path, subjects: Sequence[SyntheticSubject], size_px: int, seed: int) -> bool:
    """Whether `dest` holds this very dataset: csv, file names, and first and last image byte for byte."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return False
    images, ids = _image_folder(dest), range(FIRST_ID, FIRST_ID + len(subjects))
    try:
        same = (dest / f"{NAME}.csv").read_text(encoding="utf-8") == format_labels(subjects)
        same = same and {file.name for file in images.iterdir()} == {f"{id_}.png" for id_ in ids}
        same = same and all(
            (images / f"{id_}.png").read_bytes() == radiograph_png(seed, id_, size_px) for id_ in (ids[0], ids[-1])
        )
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        raise ContractError(f"{dest} is not this synthetic dataset; remove it or choose another folder")
    return True


def _image_folder(root: Path) -> Path:
    return root / NAME / NAME


def format_labels(subjects: Sequence[SyntheticSubject]) -> str:
    """The csv of the dataset."""
    rows = ((FIRST_ID + at, f"{subject.boneage_months:g}", subject.male) for at, subject in enumerate(subjects))
    return format_csv(("id", "boneage", "male"), rows)


# ---------------------------------------------------------------------------------- one subject
def draw_subject(seed: int, id_: int) -> SyntheticSubject:
    """Sex, age and pose of `id_`, from (seed, id) alone: a larger dataset begins with the smaller one."""
    random = np.random.default_rng([seed, id_])
    male = bool(random.random() < _MALE_SHARE)
    months = 0
    while not 1 <= months <= 228:
        drawn = random.normal(_MEAN_MONTHS[male], _SD_MONTHS)
        months = 6 * round(drawn / 6) if random.random() < _HALF_YEARS else round(drawn)
    # Hands grow too, but size is a poor sign of age: the jitter is wide compared with the trend.
    grown = 0.76 + 0.22 * min(1.0, months / 200)
    return SyntheticSubject(
        male=male,
        boneage_months=float(months),
        spread=random.uniform(0.8, 1.5),
        stout=random.uniform(0.9, 1.12),
        size=grown * random.uniform(0.92, 1.05),
        turn_degrees=random.uniform(-14, 14),
        shift=(random.uniform(-0.05, 0.05), random.uniform(-0.01, 0.05)),
    )


# ---------------------------------------------------------------------------------- one picture
def radiograph_png(seed: int, id_: int, size_px: int) -> bytes:
    """The radiograph of `id_` as the bytes of an 8-bit gray PNG, (size_px, size_px)."""
    random = np.random.default_rng([seed, id_, size_px])
    hand = draw_hand(draw_subject(seed, id_), size_px)
    gray = _expose(hand, random)
    _draw_marker(gray, random)
    if random.random() < 0.2:  # the frame that a collimator shields: black, rarely white
        level = 250 if random.random() < 0.2 else random.integers(0, 12)
        top, bottom, left, right = np.rint(size_px * random.uniform(0.01, 0.06, 4)).astype(int)
        gray[:top] = gray[size_px - bottom :] = level
        gray[:, :left] = gray[:, size_px - right :] = level
    encoded, data = cv2.imencode(".png", gray, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not encoded:
        raise ContractError(f"OpenCV could not encode a PNG of {size_px} px")
    return bytes(data)


def _expose(hand: HandImage, random: np.random.Generator) -> Gray:
    """Adds bone texture, background, gain and noise; some have a light background, some are underexposed."""
    side_px = len(hand)
    coarse = random.normal(1, 0.10, (side_px // 4 + 1, side_px // 4 + 1)).astype(np.float32)
    texture = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    ground = random.uniform(70, 130) if random.random() < 0.15 else random.uniform(2, 22)
    gain = random.uniform(0.5, 0.75) if ground > 60 else random.choice([0.4, 0.9, 1.1, 1.25], p=[0.1, 0.3, 0.3, 0.3])
    slope = np.linspace(-1, 1, side_px, dtype=np.float32) * random.uniform(-6, 6)
    noise = random.normal(0, random.uniform(1, 4), hand.shape)
    return np.asarray(np.clip(np.rint(hand * texture * gain + ground + slope + noise), 0, 255), np.uint8)


def _draw_marker(gray: Gray, random: np.random.Generator) -> None:
    """Draws the lead letter L on a small plate, on the side of the little finger."""
    side_px = len(gray)
    tall_px = max(4, round(side_px * random.uniform(0.05, 0.08)))
    left, top = (round(side_px * random.uniform(low, high)) for low, high in ((0.03, 0.1), (0.05, 0.85)))
    plate = gray[top : top + round(1.5 * tall_px), left : left + tall_px]
    plate[:] = np.minimum(255, plate.astype(np.int64) + 25)
    stroke, inset = max(1, tall_px // 6), max(1, tall_px // 4)
    plate[inset : inset + tall_px, inset : inset + stroke] = 245
    plate[inset + tall_px - stroke : inset + tall_px, inset : inset + tall_px // 2] = 245


# ------------------------------------------------------------------------------------- the hand
class Canvas:
    """A square of `side_px` with two layers, soft tissue and bone, in units of the hand."""

    def __init__(self, side_px: int, subject: SyntheticSubject) -> None:
        self.soft: Gray = np.zeros((side_px, side_px), np.uint8)
        self.bone: Gray = np.zeros((side_px, side_px), np.uint8)
        self._unit_px = 0.77 * side_px * subject.size
        self._turn = _rotation(subject.turn_degrees)
        self._origin = side_px * (np.array([0.45, 0.79]) + subject.shift)
        self._rim_px = max(1, round(self._unit_px * 0.0075))

    def draw_flesh(self, outline: Points) -> None:
        cv2.fillPoly(self.soft, [self._fixed(outline)], _SOFT, cv2.LINE_AA, _SUBPIXEL_BITS)

    def draw_bone(self, outline: Points, density: float = 1.0) -> None:
        """A bone: spongy inside, with a denser rim, like cortex seen edge on."""
        points = [self._fixed(outline)]
        cv2.fillPoly(self.bone, points, _BONE * density, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.polylines(self.bone, points, True, _CORTEX * density, self._rim_px, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _fixed(self, outline: Points) -> npt.NDArray[np.int32]:
        pixels = outline @ self._turn.T * self._unit_px + self._origin
        return np.asarray(np.rint(pixels * (1 << _SUBPIXEL_BITS)), np.int32)


def draw_hand(subject: SyntheticSubject, side_px: int) -> HandImage:
    """The hand on an empty background: float32 (side_px, side_px), about 0..180."""
    canvas = Canvas(side_px * max(1, round(384 / side_px)), subject)
    for ray in _RAYS:
        _draw_ray(canvas, ray, subject)
    palm = np.array([[-0.115, 0.03], [-0.155, -0.13], [-0.185, -0.33], [0.02, -0.42], [0.145, -0.40],
                     [0.165, -0.27], [0.21, -0.19], [0.13, 0.03]])  # fmt: skip
    canvas.draw_flesh(palm * [subject.stout, 1.0])
    arm = np.array([[-0.115, 0.0], [-0.100, 0.12], [-0.125, 0.9], [0.125, 0.9], [0.105, 0.12], [0.130, 0.0]])
    canvas.draw_flesh(arm * [subject.stout, 1.0])
    for x, wrist, shaft, onset in _FOREARM:
        cap, top = wrist * 0.36, 0.005 + 0.02 * (x < 0)
        if subject.maturity > onset:
            width = wrist * (0.3 + 0.7 * _grown(subject.maturity, onset, 0.75))
            canvas.draw_bone(_oval((x, top + cap), width, cap, 0.0))
        head = top + 2 * cap + 0.018 * _openness(subject.maturity) + 0.01 * (1 - subject.maturity)
        flare = np.array([[-wrist, 0], [-shaft, 0.10], [-shaft, 0.9], [shaft, 0.9], [shaft, 0.10], [wrist, 0]])
        canvas.draw_bone(flare * [0.95, 1.0] + [x, head])
    for x, y, half_width, half_height, onset in _CARPALS:
        if (grown := _grown(subject.maturity, onset, 0.75)) > 0:
            factor = 0.3 + 0.7 * grown
            canvas.draw_bone(_oval((x, y), half_width * factor, half_height * factor, 0.0), 0.85)
    soft = _blurred(box_filter(canvas.soft, side_px, side_px), side_px * 0.012)
    bone = _blurred(box_filter(canvas.bone, side_px, side_px), side_px * 0.0035)
    return np.asarray(soft + bone * (0.6 + 0.4 * subject.maturity), np.float32)


# ------------------------------------------------------------------------------------- the parts
def _draw_ray(canvas: Canvas, ray: Ray, subject: SyntheticSubject) -> None:
    degrees = ray.degrees * subject.spread
    along = _rotation(degrees) @ np.array([0.0, -1.0])
    joint = np.array(ray.base)
    for bone, length in enumerate(ray.lengths):
        tip = joint + along * length
        half_width = ray.half_width * subject.stout * (1 - 0.13 * bone)
        fleshy = half_width * (2.6 if bone == 0 else 2.4)
        canvas.draw_flesh(_tube(joint, tip + along * 0.012, fleshy, fleshy * 0.92, fleshy * 0.92))
        # The plate of a finger's metacarpal lies at its head, all others at the base.
        at_head = bone == 0 and len(ray.lengths) == 4
        ends = (tip, joint) if at_head else (joint, tip)
        last = bone == len(ray.lengths) - 1
        _draw_long_bone(canvas, ends, half_width, 0.06 + 0.02 * bone, subject.maturity, tapers=last)
        joint = tip


def _draw_long_bone(
    canvas: Canvas, ends: tuple[Points, Points], half_width: float, onset: float, maturity: float, tapers: bool
) -> None:
    """A shaft with an epiphysis before its first end; in young hands both end short of the joint."""
    plate, far = ends
    along = (far - plate) / np.hypot(*(far - plate))
    cartilage = half_width * (0.2 + 0.75 * (1 - maturity))
    gap = half_width * 0.75 * _openness(maturity)
    cap = half_width * 0.42
    start = plate + along * (cartilage + (2 * cap + gap) * (maturity > onset))
    stop = far - along * cartilage * 0.6
    canvas.draw_bone(_tube(start, stop, half_width * 1.15, half_width * 0.72, half_width * (0.55 if tapers else 1.0)))
    if maturity > onset:
        width = half_width * (0.3 + 0.9 * _grown(maturity, onset, 0.7))
        canvas.draw_bone(
            _oval(plate + along * (cartilage + cap), width, cap, np.degrees(np.arctan2(along[0], -along[1])))
        )


# ------------------------------------------------------------------------------------- geometry
def _grown(maturity: float, onset: float, full: float) -> float:
    """0 up to `onset`, 1 from `full` on."""
    return float(np.clip((maturity - onset) / (full - onset), 0, 1))


def _openness(maturity: float) -> float:
    """How open the growth plates are: fully until 0.55, closed at 1."""
    return 1 - _grown(maturity, 0.55, 1.0)


def _rotation(degrees: float) -> Points:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def _oval(centre: tuple[float, float] | Points, half_width: float, half_height: float, degrees: float) -> Points:
    """(24, 2) outline, boxier than an ellipse, like small bones."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    cosine, sine = np.cos(turn), np.sin(turn)
    shape = np.stack([np.sign(cosine) * np.abs(cosine) ** 0.8, np.sign(sine) * np.abs(sine) ** 0.8], axis=1)
    return np.asarray(shape * [half_width, half_height] @ _rotation(degrees).T + centre)


def _tube(start: Points, stop: Points, base: float, waist: float, head: float) -> Points:
    """(36, 2) outline of a long bone or a finger: half widths at base, middle and head, round ends."""
    along = stop - start
    length = np.hypot(*along)
    step = np.linspace(0, 1, 18)
    ends = np.where(step < 0.5, base, head)
    half = waist + (ends - waist) * np.abs(2 * step - 1) ** 2.2
    rounding = np.minimum(step, 1 - step) * length / (0.55 * ends)
    half = half * np.sqrt(np.clip(1 - (1 - np.minimum(rounding, 1)) ** 2 * 0.75, 0, 1))
    across = np.array([-along[1], along[0]]) / length
    spine = start + step[:, None] * along
    return np.concatenate([spine + across * half[:, None], (spine - across * half[:, None])[::-1]])


def _blurred(layer: Gray, sigma_px: float) -> HandImage:
    return np.asarray(cv2.GaussianBlur(layer.astype(np.float32), (0, 0), max(sigma_px, 0.3)), np.float32)


# ----------------------------------------------------------------------------------- command line
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.data.synth", description=__doc__.split("\n")[0])
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to create")
    parser.add_argument("--n", type=int_in_range(1, 100_000), default=600, help="number of radiographs (600)")
    parser.add_argument("--size-px", type=int_in_range(32, 2048), default=128, help="image side in pixels (128)")
    parser.add_argument("--seed", type=int_in_range(0, 2**32 - 1), default=1, help="seed of ages and poses (1)")
    parser.add_argument("--workers", type=int_in_range(1, 256), help="number of processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)

    def command() -> None:
        made = synthesize(arguments.dest, arguments.n, arguments.size_px, arguments.seed, arguments.workers)
        head = "already made" if made["already_made"] else "drawn"
        text = f"{head}: {made['count']:,} radiographs of {made['image_size_px']} px in {made['dest']}"
        print_result(
            made, f"{text} ({made['male']:,} boys, {made['female']:,} girls; {made['elapsed_s']:.1f} s)", arguments.json
        )

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
