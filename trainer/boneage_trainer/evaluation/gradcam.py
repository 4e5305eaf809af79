"""Grad-CAM: which parts of a radiograph move the predicted age, and whether such a map can be trusted at all.

A map that stays where it is when the hand moves says nothing about the hand; so images are also shifted
by a known distance, and the maps must move with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt

from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder, write_atomic
from boneage_trainer.data.pack import Pack
from boneage_trainer.evaluation.metrics import rounded
from boneage_trainer.inference.model import inputs

FEATURE_MAP = "feature_map"
_MOST = 32
_SHOWN = 4
_CELL_PX, _CAPTION_PX, _MARGIN_PX = 176, 36, 4
_TERMS = "The terms of the data apply to these radiographs. " + RESEARCH_ONLY

Maps = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


def write(folder: RunFolder, model: Any, pack: Pack, rows: Sequence[int], predicted: Any) -> dict[str, Any]:
    """Leaves ``gradcam.png`` in `folder` and returns the figures for ``evaluation.json``.

    The picture has the 4 worst images of `rows` and 4 of about median error, each beside its map. It
    contains radiographs, so the terms of the data set apply to it. `predicted` is (n,) or (views, n).

    Returns:
        done true, with images, map_cells, central_share (of the heat, in the middle half of the area; an
        even map has 0.5), shift (see `shift_check`) and shown (the ids); or done false and a reason. It
        never raises for what a model lacks: a picture must not cost a finished training.
    """
    try:
        return _written(folder, model, pack, rows, np.atleast_2d(np.asarray(predicted, float)).mean(axis=0))
    except Exception as error:  # whatever a strange model makes Keras or TensorFlow raise
        return {"done": False, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _written(folder: RunFolder, model: Any, pack: Pack, rows: Sequence[int], guess: Any) -> dict[str, Any]:
    if reason := why_not(model):
        return {"done": False, "reason": reason}
    order = np.asarray(rows, np.intp)
    worst, ordinary = chosen(np.abs(guess - pack.months[order]))
    shown = [*worst, *ordinary]
    at = np.array([*shown, *_others(len(order), shown)][: affordable(pack.images.shape[1])], np.intp)
    images, males = pack.images[order[at]], pack.male[order[at]]
    small = cells(model, images, males)
    heat = enlarged(small, images.shape[1])
    captions = [_caption(pack, int(order[one]), guess[one], one in worst) for one in shown]
    write_atomic(folder.gradcam, sheet(images[: len(shown)], heat[: len(shown)], captions, len(worst)))
    return {
        "done": True,
        "images": len(at),
        "map_cells": small.shape[1],
        "central_share": central_share(heat),
        "shift": shift_check(model, images, males, small),
        "shown": [pack.ids[int(order[one])] for one in shown],
    }


def chosen(sizes: npt.NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Positions of the largest errors, and of those nearest the median error; `sizes` (n,) are absolute."""
    worst = [int(at) for at in np.argsort(-sizes, kind="stable")[:_SHOWN]]
    nearest = np.argsort(np.abs(sizes - np.median(sizes)), kind="stable")
    return worst, [int(at) for at in nearest if at not in worst][:_SHOWN]


def affordable(px: int) -> int:
    """How many images of that size cost only seconds on a CPU: 32 up to 128 px, then by area, at least 8."""
    return max(2 * _SHOWN, min(_MOST, _MOST * 128**2 // px**2))


def _others(count: int, shown: Sequence[int]) -> list[int]:
    """More positions, evenly spread over the set."""
    spread = np.unique(np.linspace(0, count - 1, min(count, _MOST)).astype(int))
    return [int(at) for at in spread if at not in shown]


# ------------------------------------------------------------------------------------------ maps
def why_not(model: Any) -> str:
    """Why there can be no maps of `model`; empty where there can."""
    if keras.backend.backend() != "tensorflow":
        return f"the backend is {keras.backend.backend()}; Grad-CAM here needs TensorFlow's gradients"
    names = [layer.name for layer in model.layers]
    return "" if FEATURE_MAP in names else f"the model has no layer named {FEATURE_MAP}"


def heat_maps(model: Any, images: Images, males: npt.NDArray[np.float32]) -> Maps | None:
    """Maps (n, px, px) in 0..1 for images (n, px, px) and male (n,); None where `why_not` has a reason."""
    return None if why_not(model) else enlarged(cells(model, images, males), images.shape[1])


def cells(model: Any, images: Images, males: npt.NDArray[np.float32]) -> Maps:
    """The maps at the size of the feature map, (n, h, w), each up to its own maximum of 1.

    A regressor's evidence points both ways, so the size of the weighted sum counts and not, as in
    classification, only its positive part: bones that make a hand younger are heat too.
    """
    import tensorflow as tf

    layer = model.get_layer(FEATURE_MAP).output
    below = keras.Model(model.inputs, layer)
    above = keras.Model([layer, *model.inputs[1:]], model.output)
    given = [tf.convert_to_tensor(one) for one in inputs(model, images, males)]
    features = below(given, training=False)
    with tf.GradientTape() as tape:
        tape.watch(features)  # by name, since a frozen network has nothing else that is watched
        months = above([features, *given[1:]], training=False)
    weights = tf.reduce_mean(tf.cast(tape.gradient(months, features), "float32"), axis=(1, 2), keepdims=True)
    heat = np.abs(np.asarray(tf.reduce_sum(weights * tf.cast(features, "float32"), axis=-1)))
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(heat, most, out=np.zeros_like(heat), where=most > 0), np.float32)


def enlarged(small: Maps, px: int) -> Maps:
    """Maps (n, h, w) at the size of the images, (n, px, px), in 0..1."""
    large = [cv2.resize(one, (px, px), interpolation=cv2.INTER_LINEAR) for one in small]
    return np.asarray(np.clip(np.stack(large), 0, 1), np.float32)


# ----------------------------------------------------------------------------------------- sanity
def shift_check(model: Any, images: Images, males: npt.NDArray[np.float32], small: Maps) -> dict[str, Any]:
    """Moves `images` to the right by whole map cells; a map that shows anything must move with them.

    Returns:
        shift_px; and mean correlations over images, where old and new map overlap: moved (the old map
        moved along; should be near 1), unmoved (left in place; should be lower), unrelated (moved maps
        of other images, the control). Null where the map has too few cells, or is constant.
    """
    wide = small.shape[2]
    by = max(1, round(wide / 8))
    if wide < by + 2:
        return {"shift_px": None, "moved": None, "unmoved": None, "unrelated": None}
    shift_px = round(by * images.shape[2] / wide)
    after = cells(model, shifted(images, shift_px), males)[:, :, by:]
    moved = small[:, :, :-by]
    return {
        "shift_px": shift_px,
        "moved": _correlation(moved, after),
        "unmoved": _correlation(small[:, :, by:], after),
        "unrelated": _correlation(np.roll(moved, 1, axis=0), after) if len(small) > 1 else None,
    }


def shifted(images: Images, by_px: int) -> Images:
    """`images` (n, px, px) moved right; their left edge is repeated into what opens."""
    return np.pad(images, ((0, 0), (0, 0), (by_px, 0)), mode="edge")[:, :, :-by_px]


def _correlation(first: Maps, second: Maps) -> float | None:
    """Pearson's, image by image, as a mean over those where neither map is constant."""
    found = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1]
        for one, other in zip(first, second, strict=True)
        if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    return rounded(np.mean(found)) if found else None


def central_share(heat: Maps) -> float | None:
    """The mean share of a map's heat in the middle square that has half of the area."""
    px = heat.shape[1]
    edge = round(px * (1 - 0.5**0.5) / 2)
    total = heat.sum(axis=(1, 2))
    inside = heat[:, edge : px - edge, edge : px - edge].sum(axis=(1, 2))
    return rounded((inside[total > 0] / total[total > 0]).mean()) if (total > 0).any() else None


# ---------------------------------------------------------------------------------------- picture
def _caption(pack: Pack, row: int, guess: float, is_worst: bool) -> tuple[str, str]:
    name = pack.ids[row].encode("ascii", "replace").decode()[:28]  # the letters OpenCV can draw
    actual = float(pack.months[row])
    kind = "worst" if is_worst else "ordinary"
    return f"{kind}: {name}", f"actual {actual:.0f}, predicted {guess:.0f} months ({guess - actual:+.0f})"


def sheet(images: Images, heat: Maps, captions: Sequence[tuple[str, str]], columns: int) -> bytes:
    """PNG bytes: `columns` pairs a row, each a radiograph (px, px) beside its overlay, two lines below it."""
    pairs = [_pair(*one) for one in zip(images, heat, captions, strict=True)]
    blank = np.full_like(pairs[0], 32)
    pairs += [blank] * (-len(pairs) % columns)
    rows = [np.hstack(pairs[start : start + columns]) for start in range(0, len(pairs), columns)]
    strip = np.full((_CAPTION_PX // 2, rows[0].shape[1], 3), 32, np.uint8)
    _draw(strip, _TERMS, 0)
    done, data = cv2.imencode(".png", np.vstack([strip, *rows]))
    if not done:
        raise ContractError("OpenCV could not encode the Grad-CAM sheet")
    return bytes(data)


def _pair(image: Images, heat: Maps, caption: tuple[str, str]) -> Images:
    gray = cv2.cvtColor(cv2.resize(image, (_CELL_PX, _CELL_PX), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    level = (255 * cv2.resize(heat, (_CELL_PX, _CELL_PX))).astype(np.uint8)
    overlay = cv2.addWeighted(gray, 0.55, cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), 0.45, 0)
    pair = np.full((_CELL_PX + _CAPTION_PX + _MARGIN_PX, 2 * _CELL_PX + _MARGIN_PX, 3), 32, np.uint8)
    pair[:_CELL_PX, : 2 * _CELL_PX] = np.hstack([gray, overlay])
    for number, line in enumerate(caption):
        _draw(pair, line, _CELL_PX + number * _CAPTION_PX // 2)
    return pair


def _draw(picture: Images, text: str, top_px: int) -> None:
    below = (3, top_px + _CAPTION_PX // 2 - 5)
    cv2.putText(picture, text, below, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230.0, 230.0, 230.0), 1, cv2.LINE_AA)
