"""Views of a test image: the first is the image, the second its mirror image, all repeatable."""

from __future__ import annotations

import numpy as np

from boneage_trainer.inference.views import MAX_VIEWS, make_view

IMAGES = np.random.default_rng(0).integers(0, 255, (3, 32, 32)).astype(np.uint8)


def test_the_first_is_the_image_and_the_second_its_mirror_image() -> None:
    assert (make_view(IMAGES, 0) == IMAGES).all()
    assert (make_view(IMAGES, 1) == IMAGES[:, :, ::-1]).all()


def test_every_view_differs_and_is_the_same_on_every_call() -> None:
    views = [make_view(IMAGES, number) for number in range(MAX_VIEWS)]
    assert len({images.tobytes() for images in views}) == MAX_VIEWS
    for number, images in enumerate(views):
        assert (images.dtype, images.shape) == (np.uint8, IMAGES.shape)
        assert (images == make_view(IMAGES, number)).all()


def test_turning_keeps_the_hand_in_the_middle() -> None:
    dot = np.zeros((1, 33, 33), np.uint8)
    dot[0, 15:18, 15:18] = 255
    for number in range(MAX_VIEWS):
        at = np.argwhere(make_view(dot, number)[0] > 128)
        assert np.abs(at.mean(axis=0) - 16).max() < 0.6
