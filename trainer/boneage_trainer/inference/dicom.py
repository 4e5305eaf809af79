"""DICOM radiographs as 8-bit gray, as a viewer shows them. Of the header only what the pixels need is ever read out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pixels import Gray

_RADIOGRAPHS = ("CR", "DX", "RG", "RF", "XA", "IO", "OT", "SC")
_PARTS = ("HAND", "WRIST", "FINGER", "THUMB", "CARPAL", "METACARP", "EXTREMITY", "ARM", "UP_EXM", "BONE")


def gray_of(data: bytes) -> Gray:
    """The picture in a DICOM file, (height, width) uint8, bright bones whatever way it was stored.

    Modality and window (the first) are applied; without a window, the least and greatest value become 0 and 255.

    Raises:
        ContractError: no readable picture, several frames, colour, or by its header no radiograph of a hand. The
            message never has anything of the header but codes of this module.
    """
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        _check(dataset)
        values = _shown(dataset)
    except ContractError:
        raise
    except (InvalidDicomError, AttributeError, KeyError, ValueError, TypeError, RuntimeError, NotImplementedError,
            EOFError, OSError) as error:  # fmt: skip
        # Not its message, which may quote the header.
        raise ContractError(f"DICOM that cannot be decoded ({type(error).__name__}){_codec(data)}") from None
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() + values.min() - values
    return _eight_bits(values)


def _check(dataset: Any) -> None:
    if "PixelData" not in dataset:
        raise ContractError("DICOM without a picture")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ContractError("DICOM of several frames; give one picture a file")
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ContractError("DICOM in colour; radiographs are gray")
    if str(dataset.get("PhotometricInterpretation")) not in ("MONOCHROME1", "MONOCHROME2"):
        raise ContractError("DICOM in colour; radiographs are gray")
    if str(dataset.get("Modality") or "OT").upper() not in _RADIOGRAPHS:
        raise ContractError("DICOM of another modality than radiography")
    part = str(dataset.get("BodyPartExamined") or "").upper()
    if part and not any(name in part for name in _PARTS):
        raise ContractError("DICOM whose header names another body part than the hand")


def _shown(dataset: Any) -> Any:
    """The values as a viewer shows them, float64 (height, width)."""
    stored = dataset.pixel_array
    if stored.ndim != 2:
        raise ContractError("DICOM of several frames; give one picture a file")
    values = np.asarray(apply_modality_lut(stored, dataset))
    return np.asarray(apply_voi_lut(values, dataset, index=0), np.float64)


def _eight_bits(values: Any) -> Gray:
    low, high = float(values.min()), float(values.max())
    return np.asarray(np.rint((values - low) * (255 / max(high - low, 1e-9))), np.uint8)


def _codec(data: bytes) -> str:
    """What is missing where the picture is compressed in a way that needs another package."""
    try:
        syntax = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).file_meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError, EOFError, OSError):
        return ""
    return f"; it is compressed ({syntax.name}): pip install pylibjpeg[all]" if syntax.is_compressed else ""
