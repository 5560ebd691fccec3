"""What a photo's file keeps, against Pillow: colours, grey, transparency, profile, orientation."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.images.decoding import decode_photo
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.sampling.photo_writer import form_of, write_photo
from tests.pipelines.sampling.photos import saved


def profile_of(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()  # type: ignore[arg-type]


def wide_profile() -> bytes:
    """sRGB with its primaries moved outwards, as a wide-gamut display has them."""
    import struct

    profile = bytearray(profile_of("sRGB"))
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        kind, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if kind == b"gXYZ":  # Adobe RGB's green
            struct.pack_into(">3i", profile, offset + 8, *(round(v * 65536) for v in (0.2053, 0.6257, 0.0609)))
        if kind == b"rXYZ":
            struct.pack_into(">3i", profile, offset + 8, *(round(v * 65536) for v in (0.6097, 0.3111, 0.0195)))
    return bytes(profile)


def rewritten(data: bytes, kind: str, quality: int | None = None) -> Image.Image:
    """What a photo becomes where upscaling is the identity."""
    photo = decode_photo(data)
    form = form_of(photo, photo.pixels.shape[:2], kind)  # type: ignore[arg-type]
    rows = [slice(top, top + 5) for top in range(0, len(photo.pixels), 5)]
    strips = (form.convert(photo.pixels[at], None if photo.alpha is None else photo.alpha[at]) for at in rows)
    file = io.BytesIO()
    write_photo(file, form, strips, kind, quality)  # type: ignore[arg-type]
    return Image.open(io.BytesIO(file.getvalue()))


def gradient(mode: str) -> Image.Image:
    y, x = np.mgrid[0:23, 0:31]
    rgba = np.stack([x * 8, y * 11, (x + y) * 4, 255 - x * 8], axis=-1).astype(np.uint8)
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "1", "P"])
def test_png_keeps_colours_grey_and_transparency(mode: str) -> None:
    image = gradient("RGB").convert("P") if mode == "P" else gradient(mode)
    again = rewritten(saved(image), "png")
    assert again.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image.convert(again.mode)))


def test_palette_transparency_becomes_an_alpha_channel() -> None:
    image = gradient("RGB").quantize(16)
    again = rewritten(saved(image, transparency=3), "png")
    assert again.mode == "RGBA"
    index = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(again)[..., 3], np.where(index == 3, 0, 255))
    shown = np.asarray(again)[index != 3][:, :3]
    np.testing.assert_array_equal(shown, np.asarray(image.convert("RGB"))[index != 3])


def test_jpeg_composites_onto_white_and_says_so_and_webp_keeps_transparency() -> None:
    data = saved(gradient("RGBA"))
    photo = decode_photo(data)
    assert form_of(photo, photo.pixels.shape[:2], "jpeg").notes == ("transparency on white",)
    white = Image.new("RGBA", (31, 23), "white")
    expected = np.asarray(Image.alpha_composite(white, gradient("RGBA")).convert("RGB")).astype(int)
    assert np.abs(np.asarray(rewritten(data, "jpeg", 100)) - expected).max() <= 6
    assert rewritten(saved(gradient("L")), "jpeg").mode == "L"
    webp = rewritten(data, "webp", 100)
    assert webp.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(webp)[..., 3], np.asarray(gradient("RGBA"))[..., 3])


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_profile_is_converted_back_to_and_embedded(kind: str) -> None:
    profile = wide_profile()
    colours = np.full((23, 31, 3), (120, 140, 100), np.uint8)  # inside sRGB
    image = Image.fromarray(colours)
    assert np.abs(decode_photo(saved(image, icc_profile=profile)).pixels.astype(int) - colours).max() > 3
    again = rewritten(saved(image, icc_profile=profile), kind, None if kind == "png" else 100)
    assert again.info["icc_profile"] == profile
    assert np.abs(np.asarray(again).astype(int) - colours).max() <= 3


def test_a_profile_of_no_use_leaves_srgb_and_a_note() -> None:
    for image, profile in ((gradient("RGB"), b"no profile"), (gradient("L"), profile_of("sRGB"))):
        photo = decode_photo(saved(image, icc_profile=profile))
        form = form_of(photo, photo.pixels.shape[:2], "png")
        assert form.profile == b""
        assert form.notes == ("colour profile dropped: the output is sRGB",)
        assert "icc_profile" not in rewritten(saved(image, icc_profile=profile), "png").info
    assert rewritten(saved(gradient("RGB"), icc_profile=profile_of("sRGB")), "png").info["icc_profile"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientation_is_applied_to_colours_and_transparency_and_not_written(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(gradient("RGBA" if kind == "PNG" else "RGB"), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    again = rewritten(data, "png")
    np.testing.assert_array_equal(np.asarray(again), np.asarray(expected))
    assert 0x0112 not in again.getexif()


def test_16_bits_grey_stays_grey() -> None:
    wide = np.linspace(0, 65535, 23 * 31).reshape(23, 31).astype(np.uint16)
    again = rewritten(saved(Image.fromarray(wide)), "png")
    assert again.mode == "L"
    np.testing.assert_array_equal(np.asarray(again), np.rint(wide / 257))


def test_cmyk_becomes_srgb() -> None:
    again = rewritten(saved(Image.new("CMYK", (31, 23), (0, 255, 255, 0)), "JPEG", quality=100), "png")
    assert again.mode == "RGB"
    assert np.abs(np.asarray(again).astype(int) - [255, 0, 0]).max() <= 3


def test_a_format_that_cannot_hold_the_size_is_told() -> None:
    photo = decode_photo(saved(Image.new("RGB", (5000, 1))))
    with pytest.raises(DecodeError, match=r"20000x4, but webp allows at most 16383 pixels a side; use png") as caught:
        form_of(photo, (4, 20000), "webp")
    assert caught.value.reason is RejectReason.TOO_LARGE
    assert form_of(photo, (4, 20000), "png").size == (4, 20000)
