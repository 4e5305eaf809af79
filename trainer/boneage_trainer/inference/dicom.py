"""DICOM radiographs as 8-bit gray, as a viewer shows them. Only the header fields that the pixels need are read."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from boneage_trainer.contract import ContractError
from boneage_trainer.data.pixels import Gray

_MODALITIES = ("CR", "DX", "RG", "RF", "XA", "IO", "OT", "SC")
_BODY_PARTS = ("HAND", "WRIST", "FINGER", "THUMB", "CARPAL", "METACARP", "EXTREMITY", "ARM", "UP_EXM", "BONE")


def decode_dicom(data: bytes) -> Gray:
    """The image in a DICOM file, (height, width) uint8, with bright bones regardless of its photometric interpretation.

    Modality LUT and the first window are applied; without a window, the minimum and maximum become 0 and 255.

    Raises:
        ContractError: no readable image, several frames, colour, or the header names no radiograph of a hand. The
            message never quotes the header, which holds patient data.
    """
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        _check_header(dataset)
        stored = dataset.pixel_array
        if stored.ndim != 2:
            raise ContractError("DICOM has several frames; use one image per file")
        rescaled = np.asarray(apply_modality_lut(stored, dataset))
        values = np.asarray(apply_voi_lut(rescaled, dataset, index=0), np.float64)
    except ContractError:
        raise
    except (InvalidDicomError, AttributeError, KeyError, ValueError, TypeError, RuntimeError, NotImplementedError,
            EOFError, OSError) as error:  # fmt: skip
        # Without the error's message, which may quote the header.
        raise ContractError(f"DICOM cannot be decoded ({type(error).__name__}){_compression(data)}") from None
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() + values.min() - values
    low, high = float(values.min()), float(values.max())
    return np.asarray(np.rint((values - low) * (255 / max(high - low, 1e-9))), np.uint8)


def _check_header(dataset: Any) -> None:
    if "PixelData" not in dataset:
        raise ContractError("DICOM without an image")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ContractError("DICOM has several frames; use one image per file")
    interpretation = str(dataset.get("PhotometricInterpretation"))
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise ContractError("DICOM is in colour; radiographs are gray")
    if str(dataset.get("Modality") or "OT").upper() not in _MODALITIES:
        raise ContractError("DICOM modality is not radiography")
    part = str(dataset.get("BodyPartExamined") or "").upper()
    if part and not any(name in part for name in _BODY_PARTS):
        raise ContractError("DICOM body part is not the hand")


def _compression(data: bytes) -> str:
    """The package to install if the image is compressed; decoding it needs one."""
    try:
        syntax = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).file_meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError, EOFError, OSError):
        return ""
    return f"; it is compressed ({syntax.name}). Run: pip install 'pylibjpeg[all]'" if syntax.is_compressed else ""
