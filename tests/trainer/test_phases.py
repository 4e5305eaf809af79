"""Features of a frozen backbone are computed once and change nothing; phases follow each other and survive a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import TrainConfig, read_metrics
from boneage_trainer.train.feed import FeatureCache
from trainer.conftest import Bench, wait_until
from trainer.test_training import assert_same_weights

CLOSE = ("loss", "mae_months", "val_loss", "val_mae_months")


class Counting:
    """Features that are their row number, and the number of rows that were computed."""

    def __init__(self) -> None:
        self.computed = 0

    def __call__(self, rows: Sequence[int], draw: int) -> Iterator[Any]:
        for at in range(0, len(rows), 4):
            some = np.asarray(rows[at : at + 4], np.float32)[:, None]
            self.computed += len(some)
            yield some + 100 * draw


@pytest.mark.parametrize("share", [1.0, 0.0], ids=["memory", "disk"])
def test_features_are_computed_once_and_found_by_row(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boneage_trainer.train.feed._MEMORY_SHARE", share)
    counting = Counting()
    cache = FeatureCache(counting, (1,), np.float32, 10, tmp_path)
    assert cache.on_disk == (share == 0.0)
    for _ in range(3):
        found = cache.get("train", [5, 9, 2, 7, 30, 1], draw=1)
        assert found[[30, 2]].tolist() == [[130.0], [102.0]]
    assert counting.computed == 6
    cache.get("train", [5, 9, 2, 7, 30, 1], draw=2)
    assert counting.computed == 12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "how",
    [pytest.param({"augment": "none"}, marks=pytest.mark.long), {"augment": "light", "cached_views": 2}],
    ids=["plain", "augmented"],
)
def test_a_head_trained_from_cached_features_equals_one_trained_from_images(how: dict[str, Any], bench: Bench) -> None:
    train = {"train_backbone": False, "head_learning_rate": 0.01, "epochs": 5, "width": 8, "dropout": 0.3, **how}
    for leg, cached in (("cached", True), ("uncached", False)):
        code, output = bench.run(leg, cache_features=cached, **train)
        assert code == 0, output
    one, other = (read_metrics(bench.out(leg).metrics) for leg in ("cached", "uncached"))
    for a, b in zip(one, other, strict=True):
        assert [a[key] for key in CLOSE] == pytest.approx([b[key] for key in CLOSE], rel=2e-4)
    assert one[0]["loss"] != pytest.approx(one[-1]["loss"], rel=0.01), "nothing was learned"


def test_features_in_half_precision_are_kept_as_they_are(bench: Bench) -> None:
    """bfloat16 is no type of numpy's own, and the model that is saved computes in float32 all the same."""
    code, output = bench.run(
        "half", train_backbone=False, width=8, epochs=2, precision="mixed_bfloat16", augment="none"
    )
    assert code == 0, output
    assert len(read_metrics(bench.out("half").metrics)) == 2


@pytest.mark.long
def test_killed_between_two_phases_it_ends_as_if_never_stopped(bench: Bench) -> None:
    train = {"head_epochs": 2, "cached_views": 1, "epochs": 4}
    assert bench.run("whole", **train)[0] == 0
    process = bench.start("one", **train)
    wait_until(lambda: len(read_metrics(bench.out("one").metrics)) >= 2)
    process.kill()
    process.communicate()
    assert bench.run("two", "--resume", str(bench.root / "one"), **train)[0] == 0
    assert_same_weights(bench.out("two"), bench.out("whole"))


def test_small_images_come_first_and_the_best_is_of_the_full_size(bench: Bench) -> None:
    code, output = bench.run("small", small_px=16, small_share=0.5, epochs=4)
    assert code == 0, output
    lines = read_metrics(bench.out("small").metrics)
    assert [line["compile_s"] > 0 for line in lines] == [True, False, True, False]
    from boneage_trainer.train import checkpoint

    assert checkpoint.read_checkpoint(bench.out("small").best)[0]["epoch"] in (3, 4)


def test_images_that_are_small_already_are_not_enlarged() -> None:
    config = TrainConfig.from_mapping({"small_share": 0.5, "small_px": 64})
    assert config.small_epochs == config.epochs // 2
    assert config.for_size(64).small_epochs == 0
    assert dataclasses.replace(config).for_size(100).small_epochs == config.small_epochs
