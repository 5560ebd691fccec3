"""Colour: transparency on white, CMYK, and profiles that are converted, useless or the same."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.images.decoding import decode_image
from tests.pipelines.images.image_files import SIZE, photo, raw_png, save


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weight = alpha[..., None] / 255
    return np.rint(rgb * weight + 255 * (1 - weight))


def test_rgba_is_composited_onto_white() -> None:
    alpha = np.linspace(0, 255, 23 * 31).reshape(23, 31).astype(np.uint8)
    image = decode_image(save(Image.fromarray(np.dstack([photo(), alpha])), "PNG"))
    assert np.abs(image.pixels - on_white(photo(), alpha)).max() <= 1
    assert image.pixels[0, 0].tolist() == [255, 255, 255]
    assert "transparency on white" in image.notes


def test_grey_with_alpha_is_composited_onto_white() -> None:
    grey, alpha = photo()[..., 0], photo()[..., 1]
    image = decode_image(save(Image.fromarray(np.dstack([grey, alpha]), "LA"), "PNG"))
    assert np.abs(image.pixels - on_white(grey[..., None].repeat(3, 2), alpha)).max() <= 1


def test_palette_with_transparent_entries() -> None:
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    rows = b"\0\0\1\2" + b"\0\2\1\0"
    data = raw_png(3, 2, 8, 3, rows, (b"PLTE", palette), (b"tRNS", bytes([0, 128, 255])))
    expected = [[[255, 255, 255], [127, 255, 127], [0, 0, 255]], [[0, 0, 255], [127, 255, 127], [255, 255, 255]]]
    np.testing.assert_array_equal(decode_image(data).pixels, expected)


def test_a_transparent_colour_key() -> None:
    pixels = photo()
    key = tuple(int(value) for value in pixels[3, 4])
    image = decode_image(save(Image.fromarray(pixels), "PNG", transparency=key))
    hit = (pixels == pixels[3, 4]).all(-1)
    assert (image.pixels[hit] == 255).all()
    np.testing.assert_array_equal(image.pixels[~hit], pixels[~hit])


def test_cmyk_jpeg_is_converted() -> None:
    red = Image.new("CMYK", SIZE, (0, 255, 255, 0))
    image = decode_image(save(red, "JPEG", quality=100))
    assert np.abs(image.pixels.astype(int) - [255, 0, 0]).max() <= 3
    assert "mode CMYK" in image.notes


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "JPEG"):
        plain = save(Image.fromarray(photo()), kind)
        tagged = save(Image.fromarray(photo()), kind, icc_profile=profile)
        np.testing.assert_array_equal(decode_image(tagged).pixels, decode_image(plain).pixels)


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries exchanged: a profile whose effect nobody can overlook."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        at = 132 + 12 * index
        if profile[at : at + 4] in (b"rXYZ", b"gXYZ"):
            profile[at : at + 4] = b"gXYZ" if profile[at : at + 4] == b"rXYZ" else b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_another_profile_is_converted_to_srgb(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    red = np.full((16, 16, 3), (200, 30, 30), np.uint8)
    image = decode_image(save(Image.fromarray(red), kind, icc_profile=swapped_profile(), **options))
    assert np.abs(image.pixels.astype(int) - [30, 200, 30]).max() <= 4
    assert "colour profile converted to sRGB" in image.notes


def test_a_useless_profile_is_ignored_and_noted() -> None:
    for profile in (b"not a profile", b"\0" * 200):
        image = decode_image(save(Image.fromarray(photo()), "PNG", icc_profile=profile))
        np.testing.assert_array_equal(image.pixels, photo())
        assert "colour profile ignored" in image.notes
    rgb_profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = decode_image(save(Image.fromarray(photo()).convert("L"), "PNG", icc_profile=rgb_profile))
    assert "colour profile ignored" in grey.notes
