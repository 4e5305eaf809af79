"""Draws a left hand as a radiograph from the back shows it, as old as it is told.

Lengths are in hand units: 1 from the wrist to the tip of the middle finger, x towards the thumb,
y towards the forearm, the wrist at the origin. What shows the age are the growth plates (gaps that
close), the epiphyses (caps that grow as wide as the shaft) and the carpals (nuclei that appear one
after the other). They follow maturity, which girls reach earlier: one picture, two ages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boneage_trainer.pixels import Gray, box_filter

Points = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

ADULT_MONTHS = {True: 222.0, False: 194.0}
"""Age at which the last growth plate has closed, by `male`."""

_SUBPIXEL_BITS = 4
_SOFT, _BONE, _CORTEX = 74, 64, 106


class Ray(NamedTuple):
    """A metacarpal and its phalanges: where it starts, its angle (right of upright), its bones."""

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
class Subject:
    """Whose hand it is, with what an X-ray room adds; `spread` and `stout` are factors around 1."""

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


class Canvas:
    """A square of `side_px` with two layers, soft tissue and bone, drawn in hand units."""

    def __init__(self, side_px: int, subject: Subject) -> None:
        self.soft: Gray = np.zeros((side_px, side_px), np.uint8)
        self.bone: Gray = np.zeros((side_px, side_px), np.uint8)
        self._unit_px = 0.77 * side_px * subject.size
        self._turn = _rotation(subject.turn_degrees)
        self._origin = side_px * (np.array([0.45, 0.79]) + subject.shift)
        self._rim_px = max(1, round(self._unit_px * 0.0075))

    def flesh(self, outline: Points) -> None:
        cv2.fillPoly(self.soft, [self._fixed(outline)], _SOFT, cv2.LINE_AA, _SUBPIXEL_BITS)

    def ossified(self, outline: Points, density: float = 1.0) -> None:
        """A bone: spongy inside, with a denser rim, as cortex seen edge on."""
        points = [self._fixed(outline)]
        cv2.fillPoly(self.bone, points, _BONE * density, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.polylines(self.bone, points, True, _CORTEX * density, self._rim_px, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _fixed(self, outline: Points) -> npt.NDArray[np.int32]:
        pixels = outline @ self._turn.T * self._unit_px + self._origin
        return np.asarray(np.rint(pixels * (1 << _SUBPIXEL_BITS)), np.int32)


def draw(subject: Subject, side_px: int) -> Image:
    """The hand on empty ground: float32 (side_px, side_px), about 0..180."""
    fine = Canvas(side_px * max(1, round(384 / side_px)), subject)
    for ray in _RAYS:
        _draw_ray(fine, ray, subject)
    _draw_palm(fine, subject)
    _draw_forearm(fine, subject)
    for x, y, half_width, half_height, onset in _CARPALS:
        if (grown := _grown(subject.maturity, onset, 0.75)) > 0:
            factor = 0.3 + 0.7 * grown
            fine.ossified(_oval((x, y), half_width * factor, half_height * factor, 0.0), 0.85)
    soft = _blurred(box_filter(fine.soft, side_px, side_px), side_px * 0.012)
    bone = _blurred(box_filter(fine.bone, side_px, side_px), side_px * 0.0035)
    return np.asarray(soft + bone * (0.6 + 0.4 * subject.maturity), np.float32)


# ------------------------------------------------------------------------------------- the parts
def _draw_ray(canvas: Canvas, ray: Ray, subject: Subject) -> None:
    degrees = ray.degrees * subject.spread
    along = _rotation(degrees) @ np.array([0.0, -1.0])
    joint = np.array(ray.base)
    for place, length in enumerate(ray.lengths):
        tip = joint + along * length
        half_width = ray.half_width * subject.stout * (1 - 0.13 * place)
        fleshy = half_width * (2.6 if place == 0 else 2.4)
        canvas.flesh(_tube(joint, tip + along * 0.012, fleshy, fleshy * 0.92, fleshy * 0.92))
        # The plate of a finger's metacarpal lies at its head, all others at the base.
        at_head = place == 0 and len(ray.lengths) == 4
        ends = (tip, joint) if at_head else (joint, tip)
        last = place == len(ray.lengths) - 1
        _draw_long_bone(canvas, ends, half_width, 0.06 + 0.02 * place, subject.maturity, tapers=last)
        joint = tip


def _draw_long_bone(
    canvas: Canvas, ends: tuple[Points, Points], half_width: float, onset: float, maturity: float, tapers: bool
) -> None:
    """A shaft with an epiphysis before its first end; in the young both end short of the joint."""
    plate, far = ends
    along = (far - plate) / np.hypot(*(far - plate))
    cartilage = half_width * (0.2 + 0.75 * (1 - maturity))
    gap = half_width * 0.75 * _fading(maturity)
    cap = half_width * 0.42
    start = plate + along * (cartilage + (2 * cap + gap) * (maturity > onset))
    stop = far - along * cartilage * 0.6
    canvas.ossified(_tube(start, stop, half_width * 1.15, half_width * 0.72, half_width * (0.55 if tapers else 1.0)))
    if maturity > onset:
        width = half_width * (0.3 + 0.9 * _grown(maturity, onset, 0.7))
        canvas.ossified(
            _oval(plate + along * (cartilage + cap), width, cap, np.degrees(np.arctan2(along[0], -along[1])))
        )


def _draw_palm(canvas: Canvas, subject: Subject) -> None:
    palm = np.array([[-0.115, 0.03], [-0.155, -0.13], [-0.185, -0.33], [0.02, -0.42], [0.145, -0.40],
                     [0.165, -0.27], [0.21, -0.19], [0.13, 0.03]])  # fmt: skip
    canvas.flesh(palm * [subject.stout, 1.0])


def _draw_forearm(canvas: Canvas, subject: Subject) -> None:
    arm = np.array([[-0.115, 0.0], [-0.100, 0.12], [-0.125, 0.9], [0.125, 0.9], [0.105, 0.12], [0.130, 0.0]])
    canvas.flesh(arm * [subject.stout, 1.0])
    for x, wrist, shaft, onset in _FOREARM:
        cap = wrist * 0.36
        gap = 0.018 * _fading(subject.maturity)
        top = 0.005 + 0.02 * (x < 0)
        if subject.maturity > onset:
            width = wrist * (0.3 + 0.7 * _grown(subject.maturity, onset, 0.75))
            canvas.ossified(_oval((x, top + cap), width, cap, 0.0))
        head = top + 2 * cap + gap + 0.01 * (1 - subject.maturity)
        flare = np.array([[-wrist, 0], [-shaft, 0.10], [-shaft, 0.9], [shaft, 0.9], [shaft, 0.10], [wrist, 0]])
        canvas.ossified(flare * [0.95, 1.0] + [x, head])


# ------------------------------------------------------------------------------------- geometry
def _grown(maturity: float, onset: float, full: float) -> float:
    """0 up to `onset`, 1 from `full` on."""
    return float(np.clip((maturity - onset) / (full - onset), 0, 1))


def _fading(maturity: float) -> float:
    """How open the growth plates are: wide until 0.55, shut at 1."""
    return 1 - _grown(maturity, 0.55, 1.0)


def _rotation(degrees: float) -> Points:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def _oval(centre: tuple[float, float] | Points, half_width: float, half_height: float, degrees: float) -> Points:
    """(24, 2) outline, boxier than an ellipse, as small bones are."""
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


def _blurred(layer: Gray, sigma_px: float) -> Image:
    return np.asarray(cv2.GaussianBlur(layer.astype(np.float32), (0, 0), max(sigma_px, 0.3)), np.float32)
