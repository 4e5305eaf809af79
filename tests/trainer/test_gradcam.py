"""Grad-CAM on networks whose maps are known, and its promise never to fail a run."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage_trainer.contract import RunFolder
from boneage_trainer.data.pack import Pack
from boneage_trainer.evaluation import gradcam
from trainer.models import brightness, of_corner

PX = 64


def blobs(count: int) -> np.ndarray:
    """Images with one bright square each, on a grid of 4 px, in the left part of the image."""
    images = np.zeros((count, PX, PX), np.uint8)
    for at in range(count):
        top, left = 4 * (1 + (5 * at) % 12), 4 * (1 + (3 * at) % 9)
        images[at, top : top + 8, left : left + 8] = 200
    return images


def pack_of(count: int = 40, ids: list[str] | None = None) -> Pack:
    months = np.linspace(20, 200, count).astype(np.float32)
    names = ids or [f"id{at}" for at in range(count)]
    return Pack(blobs(count), names, (np.arange(count) % 2).astype(np.float32), months, Path(), [""] * count)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("sex", [False, True])
def test_the_heat_is_on_the_pixels_that_the_prediction_comes_from(sex: bool, frozen: bool) -> None:
    images = blobs(6)
    model = brightness(PX, sex=sex, frozen=frozen)
    maps = gradcam.enlarge(gradcam.compute_maps(model, images, np.ones(6, np.float32)), PX)
    assert (maps.shape, maps.dtype) == (images.shape, np.float32)
    assert maps.min() == 0
    for image, heat in zip(images, maps, strict=True):
        assert heat.max() == pytest.approx(1, abs=0.15)  # the maximum lies between pixels
        bright = cv2.dilate(image, np.ones((5, 5), np.uint8)) > 0
        assert heat[bright].sum() == pytest.approx(heat.sum(), rel=1e-6)


def test_a_constant_image_has_no_heat_and_no_nan() -> None:
    maps = gradcam.compute_maps(brightness(PX), np.zeros((2, PX, PX), np.uint8), np.zeros(2, np.float32))
    assert not maps.any()
    assert gradcam.central_share(maps) is None


def test_a_map_of_the_image_moves_with_it_and_others_do_not() -> None:
    images, males, model = blobs(12), np.ones(12, np.float32), brightness(PX)
    results = gradcam.check_shift(model, images, males, gradcam.compute_maps(model, images, males))
    assert results["shift_px"] == 8
    assert results["moved"] > 0.99
    assert results["unmoved"] < 0.5
    assert results["unrelated"] < 0.5


def test_a_map_that_depends_on_the_position_only_is_detected() -> None:
    """Heat that never moves: a check that passed it would be worth nothing."""
    images, males, model = blobs(12), np.ones(12, np.float32), of_corner(PX)
    results = gradcam.check_shift(model, images, males, gradcam.compute_maps(model, images, males))
    assert results["moved"] < 0.1
    assert results["unmoved"] > 0.99


def test_shifted_repeats_the_edge() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    assert gradcam.shift_right(image, 2).tolist() == [[[0, 0, 0], [3, 3, 3], [6, 6, 6]]]
    assert gradcam.shift_right(image, 1).tolist() == [[[0, 0, 1], [3, 3, 4], [6, 6, 7]]]


def test_the_middle_half_of_an_even_map_has_half_of_the_heat() -> None:
    assert gradcam.central_share(np.ones((2, 100, 100), np.float32)) == pytest.approx(0.5, abs=0.02)
    corner = np.zeros((1, 100, 100), np.float32)
    corner[:, :5, :5] = 1
    assert gradcam.central_share(corner) == 0


def test_the_sheet_has_the_worst_four_and_four_of_median_error(tmp_path: Path) -> None:
    pack, rows = pack_of(), list(range(39, 3, -1))
    errors = np.arange(36.0)
    errors[[2, 30]] = (90, -80)
    began_s = time.monotonic()
    results = gradcam.write_gradcam(RunFolder(tmp_path), brightness(PX), pack, rows, pack.months[rows] + errors)
    assert time.monotonic() - began_s < 20
    assert results["done"] is True, results
    assert results["images"] == 32
    assert results["shown"][:4] == [f"id{rows[at]}" for at in (2, 30, 35, 34)]
    middle = np.median(np.abs(errors))
    assert all(abs(abs(errors[rows.index(int(name[2:]))]) - middle) <= 2.5 for name in results["shown"][4:])
    picture = cv2.imread(str(tmp_path / "gradcam.png"))
    assert picture.shape == (18 + 2 * (176 + 36 + 4), 4 * (2 * 176 + 4), 3)
    first = (tmp_path / "gradcam.png").read_bytes()
    gradcam.write_gradcam(RunFolder(tmp_path), brightness(PX), pack, rows, pack.months[rows] + errors)
    assert (tmp_path / "gradcam.png").read_bytes() == first


def test_fewer_large_images_are_used_but_all_examples_are_shown() -> None:
    assert [gradcam.max_images(px) for px in (16, 128, 160, 224, 1024)] == [32, 32, 20, 10, 8]


def test_few_images_with_strange_names_are_enough(tmp_path: Path) -> None:
    pack = pack_of(3, ["Röntgen 手", "a" * 300, "x\n\0y"])
    results = gradcam.write_gradcam(RunFolder(tmp_path), brightness(PX), pack, [0, 1, 2], np.stack([pack.months] * 2))
    assert results["done"] is True, results
    assert len(results["shown"]) == 3


def test_an_unsupported_model_gets_a_reason_and_no_file(tmp_path: Path) -> None:
    pack = pack_of()
    for model, reason in ((brightness(PX, named="other"), "no layer named feature_map"), (None, "AttributeError")):
        results = gradcam.write_gradcam(RunFolder(tmp_path), model, pack, [0, 1], pack.months[:2])
        assert results["done"] is False
        assert reason in results["reason"]
    assert gradcam.write_gradcam(RunFolder(tmp_path), brightness(PX), pack, [], np.array([]))["done"] is False
    assert list(tmp_path.iterdir()) == []
