"""The batches of an epoch: repeatable, complete, in order; no thread is left behind."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage_trainer.contract import ContractError, PackFolder
from boneage_trainer.data.pack import Pack, StoredImages, open_pack
from boneage_trainer.train.feed import Feed, augment_images


@pytest.fixture(scope="module")
def opened(pack: Path) -> Pack:
    return open_pack(pack, PackFolder(pack).read_card())


@pytest.fixture
def feed(opened: Pack) -> Feed:
    """70 of the 96 images, in batches that do not divide them."""
    return Feed(opened, list(range(5, 75)), 16, seed=3, augment=True)


def drawn(feed: Feed, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    rows, images = zip(*feed.load_epoch(epoch), strict=True)
    return np.concatenate(rows), np.concatenate(images)


def test_the_same_epoch_has_the_same_bytes_whatever_the_threads(feed: Feed) -> None:
    rows, images = drawn(feed, 2)
    for threads in (1, 2, 5):
        again = drawn(dataclasses.replace(feed, threads=threads), 2)
        assert np.array_equal(again[0], rows)
        assert np.array_equal(again[1], images)


def test_another_epoch_or_seed_has_other_bytes(feed: Feed) -> None:
    _, images = drawn(feed, 2)
    assert not np.array_equal(drawn(feed, 3)[1], images)
    assert not np.array_equal(drawn(dataclasses.replace(feed, seed=4), 2)[1], images)


def test_an_image_is_changed_alike_whatever_else_is_drawn(feed: Feed) -> None:
    both = [
        dict(zip(rows.tolist(), images, strict=True))
        for rows, images in (drawn(feed, 1), drawn(dataclasses.replace(feed, rows=[60, 9, 31], batch_size=3), 1))
    ]
    shared = both[0].keys() & both[1].keys()
    assert shared
    assert all(np.array_equal(both[0][row], both[1][row]) for row in shared)


def test_an_epoch_visits_a_row_at_most_once(feed: Feed) -> None:
    rows, images = drawn(feed, 1)
    assert len(rows) == len(images) == feed.images == feed.steps * 16 == 64
    assert len(set(rows.tolist())) == 64
    assert set(rows.tolist()) <= set(feed.rows)


def test_fewer_rows_than_a_batch_are_one_batch(feed: Feed) -> None:
    small = dataclasses.replace(feed, rows=[4, 8, 15])
    assert sorted(drawn(small, 1)[0].tolist()) == [4, 8, 15]
    assert (small.steps, small.images) == (1, 3)


def test_rows_and_images_belong_together(feed: Feed, pack: Path) -> None:
    rows, images = drawn(dataclasses.replace(feed, augment=False), 1)
    stored = np.load(PackFolder(pack).images)
    assert images.shape == (64, 32, 32, 1)
    assert np.array_equal(images[..., 0], stored[rows])


def test_augmented_images_stay_gray_levels_of_about_the_same_mean(feed: Feed) -> None:
    rows, images = drawn(feed, 1)
    assert images.dtype == np.uint8
    shift = images.mean(axis=(1, 2, 3)) - feed.pack.images[rows].mean(axis=(1, 2))
    assert np.abs(shift).max() < 60
    assert abs(shift.mean()) < 12


def test_a_draw_of_zeros_changes_nothing() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 20, 20), np.uint8)
    assert np.abs(augment_images(images, np.zeros((2, 8)), 20).astype(int) - images).max() <= 1


def test_a_turn_is_that_of_opencv() -> None:
    draws = np.random.default_rng(2).uniform(-1, 1, (6, 8))
    draws[:, 5:] = 0
    images = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (40, 40), np.uint8), (5, 5), 0)[None]
    for draw in draws:
        matrix = cv2.getRotationMatrix2D((19.5, 19.5), 15 * draw[0], 1 + 0.12 * draw[1])
        matrix[:, 2] += 0.04 * 40 * draw[2:4]
        source = images[0][:, ::-1] if draw[4] < 0 else images[0]
        expected = cv2.warpAffine(source.copy(), matrix, (40, 40), borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(augment_images(images, draw[None], images.shape[1])[0].astype(int) - expected).max() <= 2


def test_leaving_early_ends_the_threads(feed: Feed) -> None:
    before = threading.active_count()
    batches = feed.load_epoch(1)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_is_raised_in_the_loop(feed: Feed) -> None:
    broken = dataclasses.replace(feed, rows=[1, 2, 96], batch_size=3)
    before = threading.active_count()
    with pytest.raises(OSError, match="ends before row 96 of 96"):
        list(dataclasses.replace(broken, augment=False).load_epoch(1))
    assert threading.active_count() == before


def test_stored_images_are_those_of_numpy(pack: Path) -> None:
    stored, images = np.load(PackFolder(pack).images), StoredImages(PackFolder(pack).images)
    assert (len(images), images.shape, images.dtype) == (96, stored.shape, stored.dtype)
    assert np.array_equal(images[[7, 0, 95, 7]], stored[[7, 0, 95, 7]])
    assert images[[]].shape == (0, 32, 32)


def test_a_job_without_a_fingerprint_accepts_any_images_of_its_size(pack: Path) -> None:
    assert len(open_pack(pack, {"fingerprint": "", "count": 0, "image_size_px": 32}).ids) == 96
    with pytest.raises(ContractError, match="64 px"):
        open_pack(pack, {"fingerprint": "", "count": 0, "image_size_px": 64})
    with pytest.raises(ContractError, match="000000000000"):
        open_pack(pack, {"fingerprint": "0" * 64, "count": 96, "image_size_px": 32})
