"""Grad-CAM: which parts of a radiograph change the predicted age, with a test of whether such maps can be trusted.

A map that stays in place when the hand moves says nothing about the hand. So the images are also shifted by a known
distance, and the maps must move with them.
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
from boneage_trainer.inference.model import model_inputs
from boneage_trainer.train.model import FEATURE_MAP

_MAX_IMAGES = 32
_EXAMPLES = 4
_CELL_PX, _CAPTION_PX, _MARGIN_PX = 176, 36, 4
_TERMS = "The terms of the data apply to these radiographs. " + RESEARCH_ONLY

Maps = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


def write_gradcam(folder: RunFolder, model: Any, pack: Pack, rows: Sequence[int], predicted: Any) -> dict[str, Any]:
    """Writes ``gradcam.png`` into `folder` and returns the results for ``evaluation.json``.

    The picture shows the 4 images of `rows` with the largest errors and 4 with about the median error, each beside
    its map. It contains radiographs, so the terms of the data set apply to it. `predicted` is (n,) or (views, n).

    Returns:
        done true, with images, map_cells, central_share (of the heat, in the middle half of the area; 0.5 for an
        even map), shift (see `check_shift`) and shown (the ids); or done false and a reason. It never raises for
        what a model lacks: a picture must not cost a finished run.
    """
    try:
        if reason := unsupported_reason(model):
            return {"done": False, "reason": reason}
        months = np.atleast_2d(np.asarray(predicted, float)).mean(axis=0)
        return _draw_and_check(folder, model, pack, np.asarray(rows, np.intp), months)
    except Exception as error:  # whatever an unusual model makes Keras or TensorFlow raise
        return {"done": False, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _draw_and_check(
    folder: RunFolder, model: Any, pack: Pack, rows: npt.NDArray[np.intp], months: Any
) -> dict[str, Any]:
    worst, median = choose_examples(np.abs(months - pack.months[rows]))
    shown = [*worst, *median]
    spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MAX_IMAGES)).astype(int))
    others = [int(at) for at in spread if at not in shown]
    used = rows[[*shown, *others][: max_images(pack.images.shape[1])]]
    images, males = pack.images[used], pack.male[used]
    maps = compute_maps(model, images, males)
    heat = enlarge(maps, images.shape[1])
    captions = []
    for at in shown:
        id_, reference = pack.ids[int(rows[at])], float(pack.months[rows[at]])
        name = id_.encode("ascii", "replace").decode()[:28]  # the letters that OpenCV can draw
        error = f"reference {reference:.0f}, predicted {months[at]:.0f} months ({months[at] - reference:+.0f})"
        captions.append((f"{'largest' if at in worst else 'median'} error: {name}", error))
    write_atomic(folder.gradcam, draw_sheet(images[: len(shown)], heat[: len(shown)], captions, len(worst)))
    return {
        "done": True,
        "images": len(used),
        "map_cells": maps.shape[1],
        "central_share": central_share(heat),
        "shift": check_shift(model, images, males, maps),
        "shown": [pack.ids[int(rows[at])] for at in shown],
    }


def choose_examples(errors: npt.NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Positions of the largest errors, and of those nearest the median error; `errors` (n,) are absolute."""
    worst = [int(at) for at in np.argsort(-errors, kind="stable")[:_EXAMPLES]]
    nearest = np.argsort(np.abs(errors - np.median(errors)), kind="stable")
    return worst, [int(at) for at in nearest if at not in worst][:_EXAMPLES]


def max_images(px: int) -> int:
    """How many images of `px` px take only seconds on a CPU: 32 up to 128 px, then fewer by area, at least 8."""
    return max(2 * _EXAMPLES, min(_MAX_IMAGES, _MAX_IMAGES * 128**2 // px**2))


# ------------------------------------------------------------------------------------------- maps
def unsupported_reason(model: Any) -> str:
    """Why maps of `model` cannot be computed; empty if they can."""
    if keras.backend.backend() != "tensorflow":
        return f"the backend is {keras.backend.backend()}; Grad-CAM needs TensorFlow's gradients"
    names = [layer.name for layer in model.layers]
    return "" if FEATURE_MAP in names else f"the model has no layer named {FEATURE_MAP}"


def compute_maps(model: Any, images: Images, males: npt.NDArray[np.float32]) -> Maps:
    """Maps at the size of the feature map, (n, h, w), each scaled to a maximum of 1, for images (n, px, px).

    The absolute weighted sum is used, not only its positive part as in classification: in a regression, bones that
    make a hand look younger are evidence too.
    """
    import tensorflow as tf

    layer = model.get_layer(FEATURE_MAP).output
    below = keras.Model(model.inputs, layer)
    above = keras.Model([layer, *model.inputs[1:]], model.output)
    inputs = [tf.convert_to_tensor(values) for values in model_inputs(model, images, males)]
    features = below(inputs, training=False)
    with tf.GradientTape() as tape:
        tape.watch(features)  # explicitly: a frozen network has no variables that are watched
        months = above([features, *inputs[1:]], training=False)
    weights = tf.reduce_mean(tf.cast(tape.gradient(months, features), "float32"), axis=(1, 2), keepdims=True)
    heat = np.abs(np.asarray(tf.reduce_sum(weights * tf.cast(features, "float32"), axis=-1)))
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0), np.float32)


def enlarge(maps: Maps, px: int) -> Maps:
    """Maps (n, h, w) at the size of the images, (n, px, px), in 0..1."""
    large = [cv2.resize(values, (px, px), interpolation=cv2.INTER_LINEAR) for values in maps]
    return np.asarray(np.clip(np.stack(large), 0, 1), np.float32)


# -------------------------------------------------------------------------------------- validity
def check_shift(model: Any, images: Images, males: npt.NDArray[np.float32], maps: Maps) -> dict[str, Any]:
    """Shifts `images` to the right by whole map cells; a map that shows anything must move with them.

    Returns:
        shift_px; and mean correlations over images, where old and new map overlap: moved (the old map shifted by
        the same distance; should be near 1), unmoved (left in place; should be lower), unrelated (shifted maps of
        other images, the control). Null if the map has too few cells, or is constant.
    """
    width = maps.shape[2]
    cells = max(1, round(width / 8))
    if width < cells + 2:
        return {"shift_px": None, "moved": None, "unmoved": None, "unrelated": None}
    shift_px = round(cells * images.shape[2] / width)
    after = compute_maps(model, shift_right(images, shift_px), males)[:, :, cells:]
    moved = maps[:, :, :-cells]
    return {
        "shift_px": shift_px,
        "moved": _mean_correlation(moved, after),
        "unmoved": _mean_correlation(maps[:, :, cells:], after),
        "unrelated": _mean_correlation(np.roll(moved, 1, axis=0), after) if len(maps) > 1 else None,
    }


def shift_right(images: Images, by_px: int) -> Images:
    """`images` (n, px, px) moved right; the left edge is repeated into the gap."""
    return np.pad(images, ((0, 0), (0, 0), (by_px, 0)), mode="edge")[:, :, :-by_px]


def _mean_correlation(first: Maps, second: Maps) -> float | None:
    """Pearson's correlation by image, as a mean over those where neither map is constant."""
    correlations = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1]
        for one, other in zip(first, second, strict=True)
        if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    return rounded(np.mean(correlations)) if correlations else None


def central_share(heat: Maps) -> float | None:
    """The mean share of a map's heat in the middle square that has half of the area."""
    px = heat.shape[1]
    edge = round(px * (1 - 0.5**0.5) / 2)
    total = heat.sum(axis=(1, 2))
    inside = heat[:, edge : px - edge, edge : px - edge].sum(axis=(1, 2))
    return rounded((inside[total > 0] / total[total > 0]).mean()) if (total > 0).any() else None


# ---------------------------------------------------------------------------------------- picture
def draw_sheet(images: Images, heat: Maps, captions: Sequence[tuple[str, str]], columns: int) -> bytes:
    """PNG bytes: `columns` pairs per row, each a radiograph (px, px) beside its overlay, with two lines below it."""
    pairs = []
    for image, values, caption in zip(images, heat, captions, strict=True):
        small = cv2.resize(image, (_CELL_PX, _CELL_PX), interpolation=cv2.INTER_AREA)
        gray = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
        level = (255 * cv2.resize(values, (_CELL_PX, _CELL_PX))).astype(np.uint8)
        overlay = cv2.addWeighted(gray, 0.55, cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), 0.45, 0)
        pair = np.full((_CELL_PX + _CAPTION_PX + _MARGIN_PX, 2 * _CELL_PX + _MARGIN_PX, 3), 32, np.uint8)
        pair[:_CELL_PX, : 2 * _CELL_PX] = np.hstack([gray, overlay])
        for number, line in enumerate(caption):
            _draw_text(pair, line, _CELL_PX + number * _CAPTION_PX // 2)
        pairs.append(pair)
    blank = np.full_like(pairs[0], 32)
    pairs += [blank] * (-len(pairs) % columns)
    rows = [np.hstack(pairs[start : start + columns]) for start in range(0, len(pairs), columns)]
    strip = np.full((_CAPTION_PX // 2, rows[0].shape[1], 3), 32, np.uint8)
    _draw_text(strip, _TERMS, 0)
    encoded, data = cv2.imencode(".png", np.vstack([strip, *rows]))
    if not encoded:
        raise ContractError("OpenCV could not encode the Grad-CAM sheet")
    return bytes(data)


def _draw_text(picture: Images, text: str, top_px: int) -> None:
    origin = (3, top_px + _CAPTION_PX // 2 - 5)
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230.0, 230.0, 230.0), 1, cv2.LINE_AA)
