"""The model card: every heading, the numbers of the evaluation, and no value that breaks out of its cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import RESEARCH_ONLY, Job, RunFolder, TrainConfig, write_json
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.splits import make_split
from boneage_trainer.evaluation import evaluate, model_card

COUNT = 200
HEADINGS = [
    "Model", "Intended use", "Data", "Preprocessing", "Network", "Training", "Hardware and time", "Results",
    "Limitations", "Grad-CAM", "Reproducibility",
]  # fmt: skip
ENVIRONMENT = {
    "python": "3.11.7", "cpu": "A CPU", "cores": 2, "ram_gb": 8.0, "gpus": [{"name": "Tesla T4"}], "no_gpu_reason": "",
    "packages": {"keras": "3.15.1"}, "times": {"compute_s": 12.3456}, "bundle_sha256": None,
}  # fmt: skip
HOSTILE = "x|y\n## forged\n<script>alert(1)</script> [a](http://b) `c` **d**"


def job(**train: Any) -> Job:
    data = {"fingerprint": "abcdef", "count": COUNT, "image_size_px": 64}
    return Job(train=TrainConfig.from_mapping(train), data=data, provenance={"git_commit": "0123"})


def evaluation(folder: Path, views: int = 1, names: str = "id") -> dict[str, Any]:
    """The evaluation of noisy predictions for 200 images."""
    random = np.random.default_rng(5)
    months = random.uniform(10, 220, COUNT).astype(np.float32)
    male = (np.arange(COUNT) % 2).astype(np.float32)
    ids = [f"{names}{at}" for at in range(COUNT)]
    pack = Pack(np.zeros((COUNT, 1, 1), np.uint8), ids, male, months, Path(), [str(at) for at in range(COUNT)])
    parts = make_split("paper", ids)
    predicted = {
        name: months[rows] * 0.8 + 20 + random.normal(0, 9, (views, len(rows)))
        for name, rows in (("validation", parts.validation), ("test", parts.test))
    }
    shift = {"shift_px": 8, "moved": 0.91, "unmoved": 0.42, "unrelated": 0.13}
    gradcam = {"done": True, "images": 32, "map_cells": 8, "central_share": 0.71, "shift": shift, "shown": ids[:8]}
    return evaluate.write_evaluation(RunFolder(folder), pack, parts, predicted, gradcam)


def card_of(document: dict[str, Any], environment: dict[str, Any] | None = None, **train: Any) -> str:
    import dataclasses

    return model_card.format_model_card(dataclasses.asdict(job(**train)), document, environment or ENVIRONMENT)


def headings(text: str) -> list[str]:
    return [line[3:] for line in text.splitlines() if line.startswith("## ")]


def rows_of(text: str, header: str) -> dict[str, list[str]]:
    """The rows of the table whose first column is `header`, by their first cell."""
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {header} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return {cells[0]: cells[1:] for cells in table}


def test_the_card_is_written_from_the_files_in_the_run_folder(tmp_path: Path) -> None:
    document, folder = evaluation(tmp_path), RunFolder(tmp_path)
    write_json(folder.environment, ENVIRONMENT)
    model_card.write_model_card(folder, job())
    assert folder.model_card.read_text() == card_of(document)
    assert folder.model_card in list(folder.manifest_files())


def test_the_card_has_every_heading_and_the_uses_it_is_not_for(tmp_path: Path) -> None:
    text = card_of(evaluation(tmp_path))
    assert headings(text) == HEADINGS
    assert RESEARCH_ONLY in text
    assert "Not for: diagnosis" in text
    assert "Halabi" in text
    assert "radiographs, so the same terms apply" in " ".join(text.split())
    assert "single-rater" in text


def test_the_numbers_are_those_of_the_evaluation(tmp_path: Path) -> None:
    document = evaluation(tmp_path)
    text, test = card_of(document), document["sets"]["test"]
    groups = {"all": test, **test["by_sex"], **test["by_age_band"]}
    for name, cells in rows_of(text, "Group").items():
        group = groups.pop(name)
        low, high = group["mae_ci95_months"]
        assert cells[:3] == [str(group["n"]), f"{group['mae_months']:.2f}", f"{low:.2f} to {high:.2f}"]
        keys = ("rmse_months", "bias_months", "p90_ae_months", "within_12_months")
        assert cells[3:] == [f"{group[key]:.2f}" for key in keys]
    assert groups == {}
    assert f"**MAE {test['mae_months']:.2f}**" in text
    assert f"{test['baseline_median_by_sex_mae_months']:.2f} for the training median of the same sex" in text
    assert f"{test['regression_to_the_mean']['error_slope']:.3f} months of error per month of age" in text
    worst = rows_of(text, "Image")
    assert list(worst) == [case["id"] for case in test["worst"]]
    parts = rows_of(text, "Part")
    assert [parts[name][0] for name in ("train", "validation", "test")] == ["128", "32", "40"]
    assert parts["train"][3] == f"{document['parts']['train']['mean_months']:.2f}"
    assert document["split"]["sha256"] in text
    assert "Tesla T4" in text
    assert rows_of(text, "Time")["compute\\_s"] == ["12.35"]
    assert "0.91 for the old map shifted along" in " ".join(text.split())
    assert "0.42 left in place" in text


def test_the_age_band_with_the_highest_error_is_named(tmp_path: Path) -> None:
    document = evaluation(tmp_path)
    bands = document["sets"]["test"]["by_age_band"]
    worst = max(bands, key=lambda name: bands[name]["mae_months"])
    assert f"Highest error: {worst} months, MAE {bands[worst]['mae_months']:.2f}" in card_of(document)


def test_views_are_mentioned_only_if_there_are_several(tmp_path: Path) -> None:
    assert "isagreement" not in card_of(evaluation(tmp_path))
    text = card_of(evaluation(tmp_path, views=3))
    assert "mean of 3 views" in text
    assert "not an uncertainty" in text


def test_test_images_from_the_training_set_are_reported(tmp_path: Path) -> None:
    document = evaluation(tmp_path)
    assert "training set.**" not in card_of(document)
    document["sets"]["test"].update(trained_on=True, trained_on_count=7)
    assert "**7 of these images were also in the training set.**" in card_of(document)


@pytest.mark.parametrize("where", ["id", "cpu", "gpu", "provenance", "split", "reason"])
def test_hostile_values_stay_in_their_cells(where: str, tmp_path: Path) -> None:
    document = evaluation(tmp_path, names=HOSTILE if where == "id" else "id")
    environment: dict[str, Any] = dict(ENVIRONMENT)
    if where == "cpu":
        environment["cpu"] = HOSTILE
    elif where == "gpu":
        environment["gpus"] = [{"name": HOSTILE}]
    elif where == "provenance":
        environment["packages"] = {HOSTILE: HOSTILE}
    elif where == "split":
        document["split"]["name"] = HOSTILE
    elif where == "reason":
        document["gradcam"] = {"done": False, "reason": HOSTILE}
    text = card_of(document, environment)
    assert headings(text) == HEADINGS
    assert "\\<script\\>" in text
    assert not any(line.startswith("\\#") for line in text.splitlines()), "a value started a new line"
    for raw in ("<script", "x|y", "[a](", "`c`", "**d**"):
        assert raw not in text.replace("\\" + raw[0], "")


def test_an_empty_run_still_has_a_card() -> None:
    text = model_card.format_model_card({}, {}, {})
    assert headings(text) == HEADINGS
    assert "nan" not in text.lower().split()


def test_the_licence_of_the_weights_is_named() -> None:
    def network(train: dict[str, str]) -> str:
        return model_card.format_model_card({"train": train}, {}, {})

    assert "Visual Geometry Group" in network({"backbone": "vgg16", "weights": "imagenet"})
    assert "publisher's licence" in network({"backbone": "xception", "weights": "imagenet"})
    assert "no third-party licence" in network({"backbone": "residual", "weights": "none"})
