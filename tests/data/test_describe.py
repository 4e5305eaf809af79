"""The statistics of a dataset, from a tree, a csv and a pack."""

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage_trainer.data.describe import describe, main, open_data_set
from boneage_trainer.data.prepare import prepare
from boneage_trainer.data.synth import synthesize
from data.trees import make_tree


def figures(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_statistics_of_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.csv"
    path.write_text("id,boneage,male\na,6,True\nb,11,True\nc,12,False\nd,36,True\nd,40,True\ne,,True\n")
    assert figures(capsys, path) == {
        "kind": "csv", "count": 4, "male": 3, "female": 1,
        "ages": {"min_months": 6, "max_months": 36, "mean_months": 16.25, "sd_months": 11.627,
                 "median_months": 11.5, "distinct": 4, "multiples_of_6_share": 0.75},
        "histogram": [
            {"from_months": 0, "to_months": 12, "male": 2, "female": 0},
            {"from_months": 12, "to_months": 24, "male": 0, "female": 1},
            {"from_months": 24, "to_months": 36, "male": 0, "female": 0},
            {"from_months": 36, "to_months": 48, "male": 1, "female": 0},
        ],
        "split": None, "rows_unlabelled": 1, "rows_duplicate": 1,
    }  # fmt: skip


def test_a_tree_counts_found_and_missing_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "set", 5)
    (root / "images/images/2.png").rename(root / "images/images/22.png")
    found = figures(capsys, root)
    assert [found[key] for key in ("kind", "count", "images_found", "images_missing", "images_without_row")] == [
        "tree", 5, 4, 1, 1,
    ]  # fmt: skip


def test_tree_csv_and_pack_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(tmp_path / "set", n=30, size_px=32, workers=1)
    prepare(tmp_path / "set", tmp_path / "pack", size_px=32)
    sources = (tmp_path / "set", tmp_path / "set/boneage-training-dataset.csv", tmp_path / "pack")
    found = [figures(capsys, source, "--split", "paper") for source in sources]
    for key in ("count", "male", "female", "ages", "histogram", "split"):
        assert found[0][key] == found[1][key] == found[2][key]
    assert found[2]["fingerprint"]


def test_the_paper_split_is_scikit_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The test set is the head of its permutation; the known statistics of the real dataset confirm it."""
    path = tmp_path / "some.csv"
    path.write_text("id,boneage,male\n" + "".join(f"{at},{at},{at < 5}\n" for at in range(11)))
    split = describe(open_data_set(path), "paper")["split"]
    order = np.random.RandomState(2018).permutation(11)
    assert (split["train"]["count"], split["test"]["count"]) == (8, 3)
    assert split["test_ids_sha256"] == hashlib.sha256("\n".join(map(str, order[:3])).encode()).hexdigest()
    assert split["test"]["male"] == sum(order[:3] < 5)
    main([str(path), "--split", "paper"])
    assert "split paper" in capsys.readouterr().out


@pytest.mark.skipif("BONEAGE_RSNA" not in os.environ, reason="BONEAGE_RSNA is not set to the real dataset")
def test_the_real_dataset_has_its_known_statistics() -> None:
    found = describe(open_data_set(Path(os.environ["BONEAGE_RSNA"])), "paper")
    assert [found[key] for key in ("count", "male", "female", "images_found")] == [12611, 6833, 5778, 12611]
    ages = found["ages"]
    assert [ages[key] for key in ("min_months", "max_months", "distinct")] == [1, 228, 160]
    assert (round(ages["mean_months"], 2), round(ages["sd_months"], 2)) == (127.32, 41.18)
    parts = [found["split"][part] for part in ("train", "test")]
    assert [(part["count"], part["male"], part["female"]) for part in parts] == [
        (10088, 5457, 4631),
        (2523, 1376, 1147),
    ]
    assert found["split"]["test_ids_sha256"] == "c4bd5ae270fdd7db880703ba66ce302135ae6f572821cc21ae6c751715b5e647"


def test_without_ages_it_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.csv"
    path.write_text("Case ID,Sex\n1,M\n2,F\n3,F\n")
    found = figures(capsys, path, "--split", "paper")
    assert (found["count"], found["male"], found["ages"], found["histogram"]) == (3, 1, None, [])
    assert main([str(path), "--split", "paper"]) == 0
    assert "no ages" in capsys.readouterr().out


def test_the_text_has_a_line_for_every_bin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_tree(tmp_path / "set", 6))]) == 0
    out = capsys.readouterr().out
    assert "6 tree rows: 3 boys (50%), 3 girls" in out
    assert "age 12-72 months, mean 42.00, SD 20.49, median 42; 6 distinct, 100% multiples of 6" in out
    assert " 12-23       1      0  " in out
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize("kind", ["tree", "pack"])
def test_samples_are_a_sheet_by_sex_and_age(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    root, sheet = make_tree(tmp_path / "set", 19), tmp_path / "sheet.png"
    for id_ in ("2", "4"):
        (root / f"images/images/{id_}.png").write_bytes(b"broken")
    if kind == "pack":
        prepare(root, tmp_path / "pack")
        root = tmp_path / "pack"
    found = figures(capsys, root, "--samples", sheet)
    assert found["kind"] == kind
    gray = cv2.imread(str(sheet), cv2.IMREAD_GRAYSCALE)
    assert gray.shape == (2 * 182, 8 * 164)
    for row in range(2):
        for column in range(8):
            cell = gray[182 * row : 182 * row + 160, 164 * column : 164 * column + 160]
            # The first bands of the girls hold only broken images and stay empty.
            assert bool(cell.std() < 1) is ((row, column) in {(1, 0), (1, 1)})


def test_wrong_sources_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    path = tmp_path / "some.csv"
    path.write_text("id,boneage,male\n1,2,True\n")
    assert main([str(path), "--samples", str(tmp_path / "sheet.png")]) == 2
    assert "a csv alone has no images" in capsys.readouterr().err
