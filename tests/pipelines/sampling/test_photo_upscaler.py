"""Finding photos and naming outputs; what a photo's file keeps, against Pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipelines.images import colour
from pipelines.images.decoding import decode_photo
from pipelines.images.fast_codecs import PngWriter
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.sampling.photo_finder import find_photos, name_outputs
from pipelines.sampling.photo_upscaler import upscale_alpha
from pipelines.sampling.photo_writer import form_of, write_photo
from sr3core.errors import ConfigError, DataError


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.PNG", "notes.txt", "deep/c.webp", "deep/er/d.tif", ".hidden.png", "up/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def names(*inputs: object, **options: object) -> list[str]:
    return [photo.name for photo in find_photos([str(text) for text in inputs], **options)]  # type: ignore[arg-type]


def test_folders_files_and_patterns(folder: Path) -> None:
    assert names(folder) == ["a.jpg", "b.PNG"]
    assert names(folder, recursive=True) == ["a.jpg", "b.PNG", "deep/c.webp", "deep/er/d.tif", "up/a.png"]
    without = ["a.jpg", "b.PNG", "deep/c.webp", "deep/er/d.tif"]
    assert names(folder, recursive=True, leave_out=str(folder / "up")) == without
    assert names(folder / "up", recursive=True, leave_out=str(folder / "up")) == ["a.png"]
    assert names(folder / "deep" / "c.webp", folder / "notes.txt") == ["c.webp", "notes.txt"]
    assert names(folder / "*.jpg") == ["a.jpg"]
    assert names(folder / "deep" / "**" / "*.tif") == ["er/d.tif"]
    assert names(folder, folder / "a.jpg") == ["a.jpg", "b.PNG"], "each once"


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "scan[1].png").write_bytes(b"x")
    (tmp_path / "scan1.png").write_bytes(b"x")
    assert names(tmp_path / "scan[1].png") == ["scan[1].png"]


def test_what_is_not_there_is_named(folder: Path) -> None:
    for text in ("nowhere", "*.bmp"):
        with pytest.raises(DataError, match="no such file or folder"):
            names(folder / text)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no image found; a pattern in quotes"):
        names(folder / "empty")


def test_outputs_keep_names_and_never_replace_a_photo(folder: Path) -> None:
    photos = find_photos([str(folder)], recursive=True, leave_out=str(folder / "up"))
    assert list(name_outputs(photos, "/out", "png")) == ["a.png", "b.png", "deep/c.png", "deep/er/d.png"]
    for name in ("a.bmp", "b.gif", "up/b.jpg", "up/c.png", "c.jpg"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"a.bmp and .*a.jpg would both become a.jpg; .* and 2 more\. Rename one of each"
    ):
        name_outputs(find_photos([str(folder), str(folder / "up")]), "/out", "jpg")
    with pytest.raises(ConfigError, match="is among the images"):
        name_outputs(find_photos([str(folder / "a.jpg")]), str(folder), "jpg")


# --- what a file keeps ------------------------------------------------------------------------------------------------


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
    form = form_of(photo, 1, kind)  # type: ignore[arg-type]
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
    assert form_of(decode_photo(data), 1, "jpeg").notes == ("transparency on white",)
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
        form = form_of(photo, 1, "png")
        assert form.profile == b""
        assert form.notes == ("colour profile left out: the output is sRGB",)
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
    with pytest.raises(DecodeError, match=r"20000x4, and webp ends at 16383 pixels a side; take png") as caught:
        form_of(photo, 4, "webp")
    assert caught.value.reason is RejectReason.TOO_LARGE
    assert form_of(photo, 4, "png").size == (4, 20000)


# --- transparency -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(23, 31), (1, 9), (9, 1), (1, 1)])
def test_alpha_is_upscaled_as_pillow_does_in_floating_point_and_clipped(height: int, width: int) -> None:
    alpha = np.random.default_rng(0).integers(0, 2, (height, width), dtype=np.uint8) * 255
    size = (4 * height, 4 * width)
    exact = Image.fromarray(alpha.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
    expected = np.clip(np.asarray(exact), 0, 255)
    strips = [upscale_alpha(alpha, size, top, 2) for top in range(0, size[0], 2)]
    assert np.abs(np.concatenate(strips) - expected).max() <= 0.501


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_colour_under_transparent_pixels_does_not_matter(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    alpha = random.choice(np.array([0, 0, 80, 255], np.uint8), (height, width))
    pixels, others = (random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2))
    others[alpha > 0] = pixels[alpha > 0]
    filled = colour.fill_transparent(pixels, alpha)
    np.testing.assert_array_equal(filled, colour.fill_transparent(others, alpha))
    np.testing.assert_array_equal(filled[alpha > 0], pixels[alpha > 0])
    if (alpha > 0).any():
        visible = pixels[alpha > 0]
        assert (filled.min(axis=(0, 1)) >= visible.min(axis=0)).all()
        assert (filled.max(axis=(0, 1)) <= visible.max(axis=0)).all()


def test_a_red_disc_on_transparent_black_gets_no_dark_rim() -> None:
    y, x = np.mgrid[0:32, 0:32]
    alpha = np.where((x - 15) ** 2 + (y - 15) ** 2 < 100, 255, 0).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, (200, 20, 20), 0).astype(np.uint8)
    assert (colour.fill_transparent(pixels, alpha) == (200, 20, 20)).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (200, 3), (3, 200)])
def test_a_png_written_in_strips_is_read_by_pillow(channels: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    file = io.BytesIO()
    writer = PngWriter(file, height, width, channels)
    for top in range(0, height, 7):
        writer.write(pixels[top : top + 7])
    writer.close()
    again = np.asarray(Image.open(io.BytesIO(file.getvalue()))).reshape(height, width, channels)
    np.testing.assert_array_equal(again, pixels)
