"""Which pictures are accepted as hand radiographs, and that DICOM becomes the same gray as its PNG."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pixels import fit_square
from boneage_trainer.data.synth import radiograph_png
from boneage_trainer.inference import intake

Gray = npt.NDArray[np.uint8]
needs_pydicom = pytest.mark.skipif(find_spec("pydicom") is None, reason="pydicom is not installed")
NAME, BIRTH = "Secret^Patient", "20100203"


def hand(px: int = 128, id_: int = 1) -> Gray:
    return np.asarray(cv2.imdecode(np.frombuffer(radiograph_png(7, id_, px), np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def refused(folder: Path, picture: Any, suffix: str = ".png") -> str:
    """The reason, or nothing if it is accepted."""
    file = folder / f"picture{suffix}"
    cv2.imwrite(str(file), picture)
    try:
        intake.load_square(file, 96, accept_any=False)
    except ContractError as error:
        return str(error).removeprefix("not a hand radiograph: ")
    return ""


# ----------------------------------------------------------------------------------- plausibility
@pytest.mark.parametrize("px", [32, 64, 128, 256])
def test_hands_of_any_size_and_background_are_accepted(px: int, tmp_path: Path) -> None:
    for id_ in range(20):
        picture = hand(px, id_)
        for shown in (picture, 255 - picture, picture[:, px // 5 : px - px // 5], picture // 3 + 100):
            if min(shown.shape) >= 32:
                assert refused(tmp_path, shown) == ""


def test_gray_stored_in_colour_is_gray(tmp_path: Path) -> None:
    tinted = np.repeat(hand()[..., None], 3, axis=2)
    assert refused(tmp_path, tinted) == ""
    assert refused(tmp_path, tinted, ".jpg") == ""
    tinted[..., 0] = tinted[..., 0] * 0.9
    assert refused(tmp_path, tinted) == "", "a film scanned with a tint"


def scene() -> Gray:
    """Blobs of many sizes, as a photograph has."""
    random = np.random.default_rng(3)
    return np.asarray(cv2.resize(random.integers(0, 256, (24, 24), np.uint8), (300, 300)), np.uint8)


def text() -> Gray:
    page = np.full((400, 300), 250, np.uint8)
    for line in range(18):
        cv2.putText(page, "bone age 8 years", (5, 20 + 21 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 10.0, 2)
    return page


COLOURS = np.stack([scene(), scene().T, scene()[::-1]], axis=2)
NOISE = np.random.default_rng(1).integers(0, 256, (300, 300), np.uint8)
SLOPE = np.asarray(np.tile(np.linspace(0, 255, 300), (300, 1)), np.uint8)
BOARD = np.asarray(np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((30, 30))) * 255, np.uint8)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (COLOURS, "colour picture"),
        (np.full((200, 150), 77, np.uint8), "nearly blank"),
        (np.asarray(hand() // 32 + 100, np.uint8), "nearly blank"),
        (hand()[:20, :20], "only 20 x 20 px"),
        (hand()[:, 40:80], "a strip of 40 x 128 px"),
        (NOISE, "fine texture or noise everywhere"),
        (SLOPE, "no shapes, only a slow change of brightness"),
        (BOARD, "almost no gray tones, like a drawing, a mask or text"),
        (scene(), "many separate pieces, like a photograph of a scene or a page of text"),
        (text(), "fine texture or noise everywhere"),
    ],
    ids=["colour", "flat", "faint", "tiny", "strip", "noise", "slope", "board", "scene", "text"],
)
def test_other_pictures_are_refused_with_a_reason(picture: Any, reason: str, tmp_path: Path) -> None:
    assert refused(tmp_path, picture) == reason
    assert intake.load_square(tmp_path / "picture.png", 96, accept_any=True).shape == (96, 96)


def test_a_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "notes.txt", "d.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = intake.list_images([tmp_path / "x.bmp", tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["x.bmp", "a/c.JPG", "b.png", "d.dcm"]


# --------------------------------------------------------------------------------------- DICOM
def dicom(values: Any, photometric: str = "MONOCHROME2", bits: int = 8, **more: Any) -> bytes:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientBirthDate, dataset.Modality = NAME, BIRTH, "CR"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, photometric, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (8 if bits == 8 else 16), bits, bits - 1
    dataset.PixelData = values.tobytes()
    for key, value in more.items():
        setattr(dataset, key, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def decoded(folder: Path, data: bytes) -> Gray:
    (folder / "hand.dcm").write_bytes(data)
    return intake.load_square(folder / "hand.dcm", 96, accept_any=False)


def full() -> Gray:
    """A hand that uses all gray levels."""
    picture = hand().astype(float)
    return np.asarray(np.rint((picture - picture.min()) * 255 / np.ptp(picture)), np.uint8)


@needs_pydicom
@pytest.mark.parametrize(
    ("values", "more"),
    [
        (full(), {}),
        (255 - full(), {"photometric": "MONOCHROME1"}),
        (full().astype(np.uint16) * 16, {"bits": 12}),
        (full().astype(np.uint16) * 257, {"bits": 16}),
        (full().astype(np.uint16) * 8 + 1000, {"bits": 12, "RescaleSlope": 0.5, "RescaleIntercept": -500}),
        (65535 - full().astype(np.uint16) * 257, {"bits": 16, "photometric": "MONOCHROME1"}),
    ],
    ids=["8 bit", "inverted", "12 bit", "16 bit", "rescaled", "16 bit inverted"],
)
def test_dicom_is_what_its_png_would_be(values: Any, more: dict[str, Any], tmp_path: Path) -> None:
    pixels = decoded(tmp_path, dicom(values, **more)).astype(int)
    assert np.abs(pixels - fit_square(full(), 96)).max() <= 1


@needs_pydicom
def test_the_window_of_the_file_is_applied(tmp_path: Path) -> None:
    """A bright marker far above the window must not make the hand dark."""
    values = full().astype(np.uint16) * 2
    values[:6, :6] = 4095
    pixels = decoded(tmp_path, dicom(values, bits=12, WindowCenter=256, WindowWidth=512)).astype(int)
    assert np.abs(pixels - fit_square(full(), 96))[12:, 12:].max() <= 2


@needs_pydicom
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"NumberOfFrames": 2}, "several frames"),
        ({"BodyPartExamined": "CHEST"}, "body part is not the hand"),
        ({"Modality": "MR"}, "modality is not radiography"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
        ({"Rows": 4000}, "cannot be decoded"),
    ],
)
def test_other_dicom_is_refused_without_patient_data(more: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=reason) as refusal:
        decoded(tmp_path, dicom(full(), **more))
    assert NAME not in str(refusal.value)
    assert BIRTH not in str(refusal.value)


@needs_pydicom
def test_a_file_that_only_begins_like_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="DICOM"):
        decoded(tmp_path, b"\0" * 128 + b"DICM" + b"rubbish" * 10)
