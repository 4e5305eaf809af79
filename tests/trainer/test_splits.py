"""The paper's split, hold-out splits and splits from a csv."""

from __future__ import annotations

from pathlib import Path

import pytest

from boneage_trainer.contract import ContractError
from boneage_trainer.data.splits import make_split

IDS = [str(number) for number in range(12_611)]


def test_the_papers_split_has_the_papers_counts() -> None:
    parts = make_split("paper", IDS)
    assert parts.counts() == {"train": 8071, "validation": 2017, "test": 2523}
    assert sorted(parts.train + parts.validation + parts.test) == list(range(12_611))


def test_the_papers_test_set_begins_with_the_first_draws_of_seed_2018() -> None:
    import numpy as np

    drawn = np.random.RandomState(2018).permutation(12_611)
    parts = make_split("paper", IDS)
    assert parts.test == drawn[:2523].tolist()
    assert parts.validation == drawn[2523 : 2523 + 2017].tolist()


def test_the_hash_tells_test_sets_apart() -> None:
    assert make_split("holdout:0.2:2018", IDS).sha256 == make_split("paper", IDS).sha256
    assert make_split("holdout:0.2:1", IDS).sha256 != make_split("paper", IDS).sha256


def test_a_csv_decides_row_by_row(tmp_path: Path) -> None:
    names = ["test", "validation", "train", "train"] * 3
    rows = "".join(f"{number},{name}\n" for number, name in enumerate(names))
    (tmp_path / "mine.csv").write_text("id,split\n" + rows)
    parts = make_split("mine.csv", IDS[:12], tmp_path)
    assert parts.test == [0, 4, 8]
    assert parts.validation == [1, 5, 9]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("papre", "neither paper"),
        ("holdout:2:1", "fraction"),
        ("holdout:x", "holdout:FRACTION:SEED"),
        ("bad.csv", "columns id,split"),
        ("other.csv", "'999999' is not in the pack"),
        ("empty.csv", "empty"),
    ],
)
def test_invalid_splits_are_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "other.csv").write_text("id,split\n999999,test\n")
    (tmp_path / "empty.csv").write_text("id,split\n1,test\n")
    with pytest.raises(ContractError, match=message):
        make_split(name, IDS, tmp_path)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ContractError, match="9 images"):
        make_split("paper", IDS[:9])
