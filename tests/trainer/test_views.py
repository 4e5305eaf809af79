"""Views of a test image: the first is the image, the second its mirror image, all repeatable."""

from __future__ import annotations

import numpy as np

from boneage_trainer.inference.model import MOST, view

IMAGES = np.random.default_rng(0).integers(0, 255, (3, 32, 32)).astype(np.uint8)


def test_the_first_is_the_image_and_the_second_its_mirror_image() -> None:
    assert (view(IMAGES, 0) == IMAGES).all()
    assert (view(IMAGES, 1) == IMAGES[:, :, ::-1]).all()


def test_every_view_is_another_one_and_the_same_on_every_call() -> None:
    made = [view(IMAGES, number) for number in range(MOST)]
    assert len({one.tobytes() for one in made}) == MOST
    for number, one in enumerate(made):
        assert (one.dtype, one.shape) == (np.uint8, IMAGES.shape)
        assert (one == view(IMAGES, number)).all()


def test_what_turns_does_not_move_the_hand_out_of_the_image() -> None:
    dot = np.zeros((1, 33, 33), np.uint8)
    dot[0, 15:18, 15:18] = 255
    for number in range(MOST):
        at = np.argwhere(view(dot, number)[0] > 128)
        assert np.abs(at.mean(axis=0) - 16).max() < 0.6
