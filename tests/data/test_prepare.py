"""What a pack contains, what is left out of it, and when an existing one is accepted."""

import csv
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from boneage_trainer.contract import ContractError, PackFolder, sha256_of
from boneage_trainer.data.pixels import fit_square
from boneage_trainer.data.prepare import main, prepare
from data.trees import contents, make_tree, picture, png, run


def problems(pack: Path) -> list[tuple[str, str, str]]:
    with open(PackFolder(pack).problems, newline="") as stream:
        return [(row["id"], row["file"], row["problem"]) for row in csv.DictReader(stream)]


def test_a_pack_holds_the_images_in_csv_order(tmp_path: Path) -> None:
    root, pack = make_tree(tmp_path / "set", 4), PackFolder(tmp_path / "pack")
    result = prepare(root, pack.root, size_px=32)
    images = np.load(pack.images)
    assert images.dtype == np.uint8
    for at in range(4):
        np.testing.assert_array_equal(images[at], fit_square(picture(at + 1), 32))
    lines = pack.index.read_text().splitlines()
    assert lines[0] == "id,male,boneage_months,sha256"
    assert lines[2] == f"2,False,24,{sha256_of(root / 'images/images/2.png')}"
    card = pack.read_card()
    assert (card["count"], card["image_size_px"], card["labelled"]) == (4, 32, True)
    assert card["images_sha256"] == sha256_of(pack.images)
    assert card["source"]["csv"] == "labels.csv"
    assert card["source"]["folder"] == "set"
    assert str(tmp_path) not in pack.card.read_text()
    assert {key: result[key] for key in card} == card
    assert problems(pack.root) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "set"]


def test_numpy_reads_the_header_aligned(tmp_path: Path) -> None:
    make_tree(tmp_path / "set", 3)
    prepare(tmp_path / "set", tmp_path / "pack", size_px=16)
    images = np.load(tmp_path / "pack/images.npy", mmap_mode="r")
    assert (images.offset, images.shape) == (128, (3, 16, 16))


def spoiled(root: Path) -> Path:
    """Ten rows and every problem there is; the good ones are 1, 2, 6 and 8."""
    make_tree(root, 8)
    folder = root / "images/images"
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:-500])
    (folder / "4.png").unlink()
    shutil.copy(folder / "2.png", folder / "5.png")
    (folder / "77.png").write_bytes(png(picture(77)))
    text = (root / "labels.csv").read_text().replace("7,84,True", "7,,True")
    (root / "labels.csv").write_text(text + "8,30,True\n../../8,30,True\n")
    return root


def test_every_problem_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, pack = spoiled(tmp_path / "set"), tmp_path / "pack"
    assert main([str(root), "--out", str(pack), "--size-px", "32"]) == 0
    assert problems(pack) == [
        ("3", "images/images/3.png", "broken"),
        ("4", "", "missing"),
        ("5", "images/images/5.png", "duplicate"),
        ("7", "images/images/7.png", "unlabelled"),
        ("8", "images/images/8.png", "duplicate"),
        ("../../8", "", "missing"),
        ("77", "images/images/77.png", "unlabelled"),
    ]
    out = capsys.readouterr().out
    assert "7 (1 broken, 2 missing, 2 unlabelled, 2 duplicate)" in out
    images = np.load(pack / "images.npy")
    assert [line.split(",")[0] for line in (pack / "index.csv").read_text().splitlines()[1:]] == ["1", "2", "6", "8"]
    for at, id_ in enumerate((1, 2, 6, 8)):
        np.testing.assert_array_equal(images[at], fit_square(picture(id_), 32))


def test_with_json_the_summary_of_what_was_left_out_is_printed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(spoiled(tmp_path / "set")), "--out", str(tmp_path / "pack"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["problems"] == {"broken": 1, "missing": 2, "unlabelled": 2, "duplicate": 2}
    assert "left out: 7" in said.err


def test_without_ages_the_index_leaves_them_empty(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", 2)
    (root / "labels.csv").write_text("Case ID,Sex\n1,M\n2,F\n")
    assert prepare(root, tmp_path / "pack")["labelled"] is False
    assert (tmp_path / "pack/index.csv").read_text().splitlines()[2].startswith("2,False,,")


def test_only_broken_images_make_no_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "set", 3)
    for file in (root / "images/images").iterdir():
        file.write_bytes(b"no image")
    assert main([str(root), "--out", str(tmp_path / "pack")]) == 2
    assert "none of the 3 images" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


def test_a_tree_of_unusable_rows_makes_no_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "set", 2)
    (root / "labels.csv").write_text("id,boneage,male\n1,,True\n2,,False\n")
    assert main([str(root), "--out", str(tmp_path / "pack")]) == 2
    assert "none of the 2 rows" in capsys.readouterr().err


def test_a_file_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", 2)
    try:
        (root / os.fsdecode(b"images/images/caf\xe9.png")).write_bytes(png(picture(9)))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    prepare(root, tmp_path / "pack")
    assert problems(tmp_path / "pack") == [("caf\\udce9", "images/images/caf\\udce9.png", "unlabelled")]


# ------------------------------------------------------------------------------------ fingerprint
def test_workers_place_and_name_of_the_folder_do_not_change_a_pack(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", 70)
    assert run("data.prepare", root, "--out", tmp_path / "one", "--workers", 1).returncode == 0
    assert run("data.prepare", root, "--out", tmp_path / "two", "--workers", 2).returncode == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    shutil.move(root, tmp_path / "elsewhere")
    third = prepare(tmp_path / "elsewhere", tmp_path / "three")
    assert third["fingerprint"] == PackFolder(tmp_path / "one").read_card()["fingerprint"]


@pytest.mark.parametrize("change", ["size", "age", "sex", "id", "pixels"])
def test_the_fingerprint_changes_with_whatever_matters(tmp_path: Path, change: str) -> None:
    root = make_tree(tmp_path / "set", 3)
    before = prepare(root, tmp_path / "before", size_px=32)["fingerprint"]
    text = (root / "labels.csv").read_text()
    changes = {
        "age": text.replace("24", "25"),
        "sex": text.replace("2,24,False", "2,24,True"),
        "id": text.replace("2,24", "9,24"),
    }
    (root / "labels.csv").write_text(changes.get(change, text))
    if change == "pixels":
        (root / "images/images/2.png").write_bytes(png(picture(100)))
    if change == "id":
        (root / "images/images/2.png").rename(root / "images/images/9.png")
    after = prepare(root, tmp_path / "after", size_px=33 if change == "size" else 32)["fingerprint"]
    assert after != before


# ------------------------------------------------------------------------------ a pack that is there
def test_the_same_pack_is_accepted_without_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, pack = spoiled(tmp_path / "set"), tmp_path / "pack"
    first = prepare(root, pack)
    before = contents(pack)
    assert main([str(root), "--out", str(pack)]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert prepare(root, pack)["fingerprint"] == first["fingerprint"]
    assert contents(pack) == before


def test_a_copy_of_the_tree_with_new_times_is_still_the_same(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", 3)
    prepare(root, tmp_path / "pack")
    later_s = time.time() + 60
    for file in (root / "images/images").iterdir():
        os.utime(file, (later_s, later_s))
    assert prepare(root, tmp_path / "pack")["already_prepared"]


def test_a_changed_file_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", 3)
    file = root / "images/images/2.png"
    prepare(root, tmp_path / "pack")
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    later_s = time.time() + 60
    os.utime(file, (later_s, later_s))
    with pytest.raises(ContractError, match="holds another pack"):
        prepare(root, tmp_path / "pack")


@pytest.mark.parametrize("spoil", ["size", "card", "array", "foreign", "file"])
def test_something_else_at_out_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str
) -> None:
    root, pack = make_tree(tmp_path / "set", 3), PackFolder(tmp_path / "pack")
    if spoil == "foreign":
        pack.root.mkdir()
        (pack.root / "thesis.txt").write_text("years of work")
    elif spoil == "file":
        pack.root.write_text("years of work")
    else:
        prepare(root, pack.root)
    if spoil == "card":
        pack.card.write_text('{"schema": 1}')
    if spoil == "array":
        pack.images.write_bytes(pack.images.read_bytes()[:-5])
    before = contents(tmp_path)
    assert main([str(root), "--out", str(pack.root), "--size-px", "64" if spoil == "size" else "128"]) == 2
    assert "remove it or choose another --out" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    assert prepare(make_tree(tmp_path / "set", 2), tmp_path / "pack")["count"] == 2


# ------------------------------------------------------------------------------------ command line
def test_piped_progress_is_plain_lines_and_stdout_only_the_card(tmp_path: Path) -> None:
    done = run("data.prepare", make_tree(tmp_path / "set", 40), "--out", tmp_path / "pack", "--json")
    assert json.loads(done.stdout)["count"] == 40
    assert "\r" not in done.stderr
    assert re.search(r"^prepared 40/40 \(100 %\), [\d,]+/s in [\d.]+ s$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--size-px", "7"], ["--size-px", "big"], ["--workers", "0"], []])
def test_wrong_arguments_exit_with_2(tmp_path: Path, arguments: list[str]) -> None:
    out = ["--out", str(tmp_path / "pack")] if arguments else []
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), *out, *arguments])
    assert caught.value.code == 2


def test_a_wrong_tree_is_one_line_without_traceback(tmp_path: Path) -> None:
    done = run("data.prepare", tmp_path / "nowhere", "--out", tmp_path / "pack")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*nowhere is not a folder; .*\n", done.stderr)
    assert done.stdout == ""
