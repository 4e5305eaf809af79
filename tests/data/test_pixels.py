"""Decoding, the box filter and the padding."""

import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from boneage_trainer.data.pixels import box_filter, decode_gray, decode_square, fit_square
from data.trees import Gray, picture, png


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ramp() -> Gray:
    return np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)


def palette_backwards(gray: Gray) -> Image.Image:
    """The same picture, with palette index 255 standing for black."""
    image = Image.frombytes("P", (gray.shape[1], gray.shape[0]), (255 - gray).tobytes())
    image.putpalette([255 - at for at in range(256) for _ in range(3)])
    return image


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "LA", "palette", "16 bit", "jpeg", "jpeg rgb", "1 bit"])
def test_every_image_format_decodes_to_the_same_gray(kind: str) -> None:
    gray = ramp()
    image = Image.fromarray(gray)
    flavours = {
        "palette": lambda: saved(palette_backwards(gray)),
        "16 bit": lambda: png(gray.astype(np.uint16) * 257),
        "jpeg": lambda: saved(image, "JPEG", quality=98),
        "jpeg rgb": lambda: saved(image.convert("RGB"), "JPEG", quality=98),
        "1 bit": lambda: saved(Image.fromarray(gray > 127)),
    }
    got = decode_gray(flavours.get(kind, lambda: saved(image.convert(kind)))())
    expected = np.where(gray > 127, 255, 0) if kind == "1 bit" else gray.astype(int)
    assert got is not None
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= (1 if "jpeg" in kind else 0)


def test_a_transparent_pixel_keeps_its_gray() -> None:
    gray = ramp()
    got = decode_gray(saved(Image.fromarray(np.dstack([gray, gray, gray, np.zeros_like(gray)]))))
    assert got is not None
    np.testing.assert_array_equal(got, gray)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 0.99])
def test_a_cut_file_is_broken_not_half_an_image(kind: str, share: float) -> None:
    data = saved(Image.fromarray(picture(1, 300, 200)), kind)
    assert decode_gray(data) is not None
    assert decode_gray(data[: int(len(data) * share)]) is None


def test_a_png_without_its_last_chunk_or_with_a_flipped_bit_is_broken() -> None:
    data = png(picture(1, 300, 200))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x10
    assert decode_gray(data[:-12]) is None
    assert decode_gray(bytes(flipped)) is None


@pytest.mark.parametrize("junk", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9", b"<html>404</html>", b"\0" * 5000])
def test_bytes_that_are_not_an_image_are_broken(junk: bytes) -> None:
    assert decode_square(junk, 32) is None


def slow_box(gray: Gray, height_px: int, width_px: int) -> npt.NDArray[np.float64]:
    """The definition: every target pixel is the mean of the source over its rectangle."""

    def overlap(source: int, target: int) -> npt.NDArray[np.float64]:
        edges = np.arange(target + 1) * source / target
        pixel = np.arange(source)
        low = np.maximum(edges[:-1, None], pixel)
        return np.clip(np.minimum(edges[1:, None], pixel + 1) - low, 0, None) * target / source

    return overlap(gray.shape[0], height_px) @ gray.astype(np.float64) @ overlap(gray.shape[1], width_px).T


@pytest.mark.parametrize(
    "shapes",
    [((97, 61), (13, 7)), ((128, 128), (128, 128)), ((2044, 1514), (128, 95)), ((101, 3), (100, 3))],
)
def test_the_box_filter_is_exact(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (rows, columns), target = shapes
    gray = picture(rows, rows, columns)
    got, exact = box_filter(gray, *target), slow_box(gray, *target)
    # Half a gray level is what rounding takes; the little more is the reference's own float error.
    assert np.abs(got - exact).max() <= 0.5 + 1e-9


def test_huge_white_images_do_not_overflow() -> None:
    white = np.full((3000, 3000), 255, np.uint8)
    assert (box_filter(white, 100, 100) == 255).all()


def test_the_box_filter_agrees_with_inter_area() -> None:
    gray = picture(5, 900, 700)
    area = cv2.resize(gray, (70, 90), interpolation=cv2.INTER_AREA)
    assert np.abs(box_filter(gray, 90, 70).astype(int) - area).max() <= 1


@pytest.mark.parametrize("ground", [0, 255])
@pytest.mark.parametrize(("shape", "inside"), [((200, 100), np.s_[:, 16:48]), ((100, 200), np.s_[16:48, :])])
def test_padding_extends_the_background(ground: int, shape: tuple[int, int], inside: tuple[slice, slice]) -> None:
    gray = np.full(shape, ground, np.uint8)
    gray[80:120, 40:60] = 128
    got = fit_square(gray, 64)
    outside = np.ones((64, 64), bool)
    outside[inside] = False
    assert got.shape == (64, 64)
    assert (got[outside] == ground).all()
    assert (got[inside] != ground).any()


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (1, 1), (20, 30), (64, 64), (65, 64), (64, 63)])
def test_any_shape_becomes_the_square(shape: tuple[int, int]) -> None:
    assert fit_square(np.full(shape, 77, np.uint8), 64).tolist() == [[77] * 64] * 64


def test_the_aspect_is_kept_when_enlarging() -> None:
    gray = np.zeros((50, 25), np.uint8)
    gray[:, 1:-1] = 200
    got = fit_square(gray, 100)
    assert (got[50] > 100).sum() in range(44, 49)
    assert (got[:, 50] == 200).all()
