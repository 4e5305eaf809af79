"""The synthetic dataset: the tree of the real one, repeatable, with a visible age."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage_trainer.contract import ContractError
from boneage_trainer.data.source import read_tree
from boneage_trainer.data.synth import SyntheticSubject, draw_hand, draw_subject, main, synthesize
from data.trees import contents, run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("synth") / "set"
    synthesize(dest, n=12, size_px=64, workers=1)
    return dest


def test_it_has_the_tree_and_csv_of_the_real_set(small: Path) -> None:
    name = "boneage-training-dataset"
    assert sorted(path.name for path in small.iterdir()) == [name, f"{name}.csv"]
    lines = (small / f"{name}.csv").read_text().splitlines()
    assert lines[0] == "id,boneage,male"
    assert [line.split(",")[0] for line in lines[1:]] == [str(id_) for id_ in range(1377, 1389)]
    assert {line.split(",")[2] for line in lines[1:]} == {"True", "False"}
    tree = read_tree(small)
    assert not tree.strays
    assert all(row.file == small / name / name / f"{row.id}.png" for row in tree.rows)
    gray = cv2.imread(str(tree.rows[0].file), cv2.IMREAD_UNCHANGED)
    assert (gray.shape, gray.dtype) == ((64, 64), np.uint8)


def test_it_repeats_byte_for_byte_in_other_processes_too(small: Path, tmp_path: Path) -> None:
    done = run("data.synth", tmp_path / "set", "--n", 40, "--size-px", 64, "--workers", 2, "--json")
    assert json.loads(done.stdout)["count"] == 40
    larger = contents(tmp_path / "set")
    assert run("data.synth", tmp_path / "again", "--n", 40, "--size-px", 64, "--workers", 1).returncode == 0
    assert contents(tmp_path / "again") == larger
    for name, data in contents(small).items():
        assert larger[name] == data if name.endswith(".png") else larger[name].startswith(data)


def test_seed_and_size_make_other_pictures(small: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "seed", n=12, size_px=64, seed=2, workers=1)
    synthesize(tmp_path / "size", n=12, size_px=65, workers=1)
    for other in ("seed", "size"):
        assert not set(contents(small).values()) & {
            data for name, data in contents(tmp_path / other).items() if name.endswith(".png")
        }


def test_ages_are_spread_as_in_the_real_set() -> None:
    people = [draw_subject(1, id_) for id_ in range(4000)]
    ages = np.array([person.boneage_months for person in people])
    male = np.array([person.male for person in people])
    assert ages.min() >= 1
    assert ages.max() <= 228
    assert (ages == ages.round()).all()
    assert abs(ages.mean() - 127) < 3
    assert abs(ages.std() - 41) < 2
    assert abs(male.mean() - 0.54) < 0.03
    assert abs((ages % 6 == 0).mean() - 0.81) < 0.03
    assert ages[male].mean() - ages[~male].mean() > 10


def test_the_same_hand_means_another_age_for_the_other_sex() -> None:
    boy, girl = SyntheticSubject(male=True, boneage_months=111), SyntheticSubject(male=False, boneage_months=97)
    np.testing.assert_array_equal(draw_hand(boy, 64), draw_hand(girl, 64))


def test_bone_fills_the_gaps_as_the_hand_ages() -> None:
    """In one pose the picture gains bone steadily: that is the signal a network learns."""
    bone = [
        float(draw_hand(SyntheticSubject(male=True, boneage_months=months), 128).sum()) for months in range(10, 222, 30)
    ]
    assert bone == sorted(bone)


def test_the_same_set_is_accepted_and_another_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(small)
    assert main([str(small), "--n", "12", "--size-px", "64"]) == 0
    assert "already made" in capsys.readouterr().out
    for other in (["--n", "11"], ["--seed", "2"], ["--size-px", "65"]):
        assert main([str(small), "--n", "12", "--size-px", "64", *other]) == 2
        assert str(small) in capsys.readouterr().err
    assert contents(small) == before


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ContractError, match="remove it or choose"):
        synthesize(tmp_path, n=1)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_file_where_a_folder_is_needed_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file/set"), "--n", "1"]) == 3
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file'}")


def test_an_interrupted_run_leaves_nothing_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("boneage_trainer.data.synth.format_labels", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            synthesize(tmp_path / "set", n=2, size_px=32)
    assert not (tmp_path / "set").exists()
    assert not synthesize(tmp_path / "set", n=2, size_px=32)["already_made"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
