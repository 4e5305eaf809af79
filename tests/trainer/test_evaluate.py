"""The figures against hand-computed ones, and the paper's bugs that must stay impossible."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from boneage_trainer import evaluate
from boneage_trainer.pack import Pack
from boneage_trainer.splits import Split

MALE = np.array([1, 1, 0, 0], np.float32)
MONTHS = np.array([24, 100, 130, 200], np.float32)
GUESS = np.array([30, 90, 130, 230], np.float32)


def test_the_figures_are_those_one_computes_by_hand() -> None:
    found = evaluate.evaluate(list("abcd"), MALE, MONTHS, GUESS)
    assert found["n"] == 4
    assert found["mae_months"] == pytest.approx((6 + 10 + 0 + 30) / 4)
    assert found["rmse_months"] == pytest.approx(math.sqrt((36 + 100 + 900) / 4), abs=1e-4)
    assert found["bias_months"] == pytest.approx(6.5)
    assert found["median_ae_months"] == 8
    assert (found["within_6_months"], found["within_12_months"], found["within_24_months"]) == (0.5, 0.75, 0.75)
    assert found["r2"] == pytest.approx(1 - 1036 / ((MONTHS - MONTHS.mean()) ** 2).sum(), abs=1e-4)
    assert found["worst"][0] == {
        "id": "d", "male": False, "boneage_months": 200.0, "predicted_months": 230.0, "error_months": 30.0,
    }  # fmt: skip


def test_groups_add_up() -> None:
    found = evaluate.evaluate(list("abcd"), MALE, MONTHS, GUESS)
    assert {name: group["mae_months"] for name, group in found["by_sex"].items()} == {"male": 8.0, "female": 15.0}
    assert [group["n"] for group in found["by_age_band"].values()] == [1, 1, 1, 1]
    assert sum(g["n"] for sex in found["by_sex_and_age_band"].values() for g in sex.values()) == 4


def test_bland_altman_is_bias_and_twice_the_spread() -> None:
    found = evaluate.evaluate(list("abcd"), MALE, MONTHS, GUESS)
    errors = (GUESS - MONTHS).astype(float)
    assert found["loa_high_months"] == pytest.approx(errors.mean() + 1.96 * errors.std(ddof=1), abs=1e-4)
    assert found["loa_low_months"] == pytest.approx(errors.mean() - 1.96 * errors.std(ddof=1), abs=1e-4)


def test_what_has_no_value_is_null() -> None:
    found = evaluate.evaluate(list("ab"), MALE[:2], np.array([60, 60]), np.array([50, 70]))
    assert found["r2"] is None
    assert found["slope"] is None
    assert found["by_sex"]["female"] == {
        **dict.fromkeys(found["by_sex"]["male"]),
        "n": 0,
        "mae_ci95_months": [None, None],
    }


def test_predictions_stand_beside_their_own_labels() -> None:
    """The paper's test generator was shuffled: perfect predictions scored a MAE of 46.6."""
    count = 40
    months = np.arange(1, count + 1, dtype=np.float32)
    pack = Pack(
        np.zeros((count, 1, 1), np.uint8), [str(i) for i in range(count)], months % 2, months, Path(), [""] * count
    )
    order = np.random.default_rng(0).permutation(count).tolist()
    parts = Split("x", order[:10], order[10:20], order[20:], "")
    text = evaluate.predictions_csv(
        pack, parts, {name: months[getattr(parts, name)] for name in ("validation", "test")}
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["id"]) for row in rows] == sorted(order[10:])
    assert all(float(row["boneage_months"]) == float(row["predicted_months"]) for row in rows)
    assert {row["split"] for row in rows if int(row["id"]) in order[20:]} == {"test"}
