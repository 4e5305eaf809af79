"""Headers, nestings and the choice of the csv."""

from pathlib import Path

import pytest

from boneage_trainer.contract import ContractError
from boneage_trainer.data.source import find_csv, read_labels, read_tree
from data.trees import make_tree, picture, png


@pytest.mark.parametrize(
    ("text", "labelled"),
    [
        ("id,boneage,male\n7,180,True\n8,12.5,False\n", True),
        ("Image ID,male,Bone Age (months)\n7,TRUE,180\n8,FALSE,12.5\n", True),
        ("Case ID,Sex\n7,M\n8,F\n", False),
        ("\ufeffID, BoneAge ,MALE\r\n7 , 180, TRUE\r\n8,12.5 , false\r\n\r\n", True),
        (" Image  ID , Male , bone age (MONTHS)\n7,true,180.0\n8,False,12.5", True),
        ("male,extra,boneage,id\nTrue,x,180,7\nFalse,y,12.5,8,more\n", True),
    ],
)
def test_every_header_reads_the_same(tmp_path: Path, text: str, labelled: bool) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(text.encode())
    labels = read_labels(path)
    ages = [180.0, 12.5] if labelled else [None, None]
    assert labels.labelled is labelled
    assert [(row.id, row.male, row.problem) for row in labels.rows] == [("7", True, ""), ("8", False, "")]
    assert [row.boneage_months for row in labels.rows] == ages


@pytest.mark.parametrize("age", ["", "abc", "nan", "inf", "-1", "240.5", "1e9"])
def test_an_age_no_hand_can_have_is_unlabelled(tmp_path: Path, age: str) -> None:
    path = tmp_path / "some.csv"
    path.write_text(f"id,boneage,male\n1,{age},True\n2,0,True\n3,240,False\n")
    assert [row.problem for row in read_labels(path).rows] == ["unlabelled", "", ""]


def test_short_rows_bad_sexes_and_repeated_ids_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("id,boneage,male\n1\n2,24,maybe\n,24,True\n4,24,True\n4,30,False\n")
    assert [row.problem for row in read_labels(path).rows] == ["unlabelled"] * 3 + ["", "duplicate"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name,size\n1,2\n", "has the columns name,size; expected id,boneage,male"),
        (b"", "has the columns (none)"),
        (b"id,boneage,male\n", "no rows"),
        ("id,boneage,male\n1,2,True\n".encode("utf-16"), "not UTF-8"),
        (b'id,boneage,male\n"' + b"x" * 140_000, "not a readable csv"),
    ],
)
def test_an_unusable_csv_says_what_it_has(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "some.csv").write_bytes(content)
    with pytest.raises(ContractError) as caught:
        read_labels(tmp_path / "some.csv")
    assert says in str(caught.value)


@pytest.mark.parametrize("nesting", ["", "images", "images/images"])
def test_images_are_found_at_any_usual_depth(tmp_path: Path, nesting: str) -> None:
    tree = read_tree(make_tree(tmp_path / "set", nesting=nesting))
    assert [tree.relative(row.file) for row in tree.rows if row.file] == [
        f"{nesting}/{at}.png".lstrip("/") for at in range(1, 5)
    ]
    assert tree.strays == ()


def test_the_csv_decides_which_folder_is_meant(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", nesting="train/train")
    other, resized, litter = root / "test/test", root / "small", root / "__MACOSX/train"
    for folder in (other, resized, litter):
        folder.mkdir(parents=True)
    (other / "99.png").write_bytes(png(picture(99)))
    (resized / "1.png").write_bytes(png(picture(1)))
    (litter / "._1.png").write_bytes(b"junk")
    tree = read_tree(root)
    assert {row.file.parent for row in tree.rows if row.file} == {root / "train/train"}
    assert tree.strays == ()


def test_the_validation_set_may_lie_in_two_folders(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", nesting="set-1")
    (root / "set-2").mkdir()
    (root / "set-1/4.png").rename(root / "set-2/4.png")
    assert all(row.file for row in read_tree(root).rows)


@pytest.mark.parametrize("evil", ["../../secret", "/etc/secret", "..\\secret", "images/1", "."])
def test_no_id_leads_out_of_the_tree(tmp_path: Path, evil: str) -> None:
    root = make_tree(tmp_path / "a/b")
    for place in (tmp_path / "secret.png", tmp_path / "a/secret.png"):
        place.write_bytes(png(picture(1)))
    with open(root / "labels.csv", "a") as stream:
        stream.write(f"{evil},60,True\n")
    row = read_tree(root).rows[-1]
    assert (row.id, row.file, row.problem) == (evil, None, "missing")


def test_the_training_csv_is_chosen_among_several(tmp_path: Path) -> None:
    names = {
        "boneage-training-dataset.csv": "id,boneage,male\n1,2,True\n",
        "boneage-test-dataset.csv": "Case ID,Sex\n1,M\n",
        "notes.csv": "a,b\n",
    }
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    assert find_csv(tmp_path).name == "boneage-training-dataset.csv"
    (tmp_path / "validation.csv").write_text("Image ID,male,Bone Age (months)\n1,TRUE,3\n")
    assert find_csv(tmp_path).name == "boneage-training-dataset.csv"
    assert find_csv(tmp_path, "validation.csv").name == "validation.csv"
    (tmp_path / "training-2.csv").write_text("id,boneage,male\n1,2,True\n")
    with pytest.raises(ContractError, match=r"several csv files .*training-2\.csv.*choose one with --csv NAME"):
        find_csv(tmp_path)


def test_errors_list_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="is not a folder"):
        read_tree(tmp_path / "nowhere")
    with pytest.raises(ContractError, match="no csv at all"):
        read_tree(tmp_path)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ContractError, match=r"no csv with the columns .*; it has notes\.csv"):
        read_tree(tmp_path)
    with pytest.raises(ContractError, match=r"there is no x\.csv .* it has notes\.csv"):
        read_tree(tmp_path, "x.csv")
    (tmp_path / "labels.csv").write_text("id,boneage,male\n1,2,True\n")
    with pytest.raises(ContractError, match="no images at all"):
        read_tree(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/other.png").write_bytes(png(picture(1)))
    with pytest.raises(ContractError, match=r"pictures \(1 images\)"):
        read_tree(tmp_path)
