"""Every kind of image that a bucket can hold: decoded as a reference says, or rejected with its reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipelines.images.decoding import decode_image
from pipelines.images.fast_png import encode_png
from pipelines.images.rejects import DecodeError, RejectReason
from tests.pipelines.images.image_files import SIZE, photo, pillow_rgb, raw_png, rejected, save


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", RejectReason.EMPTY),
        (b"\0" * 1000, RejectReason.NOT_AN_IMAGE),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", RejectReason.NOT_AN_IMAGE),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", RejectReason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", RejectReason.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n", RejectReason.TRUNCATED),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", RejectReason.UNSUPPORTED),
        (b"8BPS\0\1\0\0\0\0\0\0\0\3", RejectReason.UNSUPPORTED),
        (b"%PDF-1.7\n", RejectReason.UNSUPPORTED),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", RejectReason.UNSUPPORTED),
    ],
    ids=["empty", "zeros", "html", "lfs-pointer", "jpeg-magic", "png-magic", "heic", "psd", "pdf", "svg"],
)
def test_what_is_no_usable_image_is_rejected(data: bytes, reason: RejectReason) -> None:
    assert rejected(data) == reason


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
        ("PPM", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "plain",
)
def test_truncation_anywhere_is_rejected(kind: str, options: dict) -> None:
    data = save(Image.fromarray(photo()), kind, **options)
    whole, reasons = decode_image(data).pixels, set()
    for end in sorted({*range(1, len(data), max(len(data) // 40, 1)), len(data) // 2, len(data) - 3}):
        try:
            pixels = decode_image(data[:end]).pixels
        except DecodeError as error:
            reasons.add(error.reason)
        else:  # what is missing held no pixels: padding, or an end mark
            assert end > len(data) * 0.8, f"{kind} cut at {end} of {len(data)} was taken"
            np.testing.assert_array_equal(pixels, whole)
    assert reasons <= {RejectReason.TRUNCATED, RejectReason.CORRUPT, RejectReason.NOT_AN_IMAGE}


def test_a_damaged_png_is_rejected_wherever_the_damage_is() -> None:
    data = save(Image.fromarray(photo()), "PNG")
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        assert rejected(bytes(damaged)) in (RejectReason.CORRUPT, RejectReason.TRUNCATED, RejectReason.NOT_AN_IMAGE)


def test_a_damaged_jpeg_scan_is_rejected_and_stray_bytes_are_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = save(Image.fromarray(noise), "JPEG")
    middle = len(data) // 2
    assert rejected(data[:middle] + b"\xff\xd9" + data[middle:]) in (RejectReason.TRUNCATED, RejectReason.CORRUPT)
    end = data.rindex(b"\xff\xd9")
    stray = decode_image(data[:end] + b"\0\0\0\0" + data[end:])
    np.testing.assert_array_equal(stray.pixels, pillow_rgb(data))
    trailing = decode_image(data + b"appended by a camera")
    np.testing.assert_array_equal(trailing.pixels, pillow_rgb(data))


def test_bombs_are_refused_before_they_are_decoded() -> None:
    bomb = raw_png(50_000, 50_000, 8, 2, b"")
    assert rejected(bomb) == RejectReason.TOO_LARGE
    assert rejected(raw_png(12_000, 12_000, 1, 0, b"")) == RejectReason.TOO_LARGE
    assert rejected(save(Image.fromarray(photo()), "PNG"), max_pixels=700) == RejectReason.TOO_LARGE
    assert decode_image(save(Image.fromarray(photo()), "PNG"), max_pixels=31 * 23).pixels.shape == (23, 31, 3)


def test_animations_and_pages_are_rejected() -> None:
    frames = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = save(frames[0], kind, save_all=True, append_images=frames[1:])
        assert rejected(data) == RejectReason.ANIMATED, kind


def test_a_camera_file_with_a_preview_is_its_photo() -> None:
    photo_and_preview = save(
        Image.fromarray(photo()), "MPO", save_all=True, append_images=[Image.fromarray(255 - photo())], quality=95
    )
    image = decode_image(photo_and_preview)
    assert image.format == "MPO"
    assert np.abs(image.pixels.astype(int) - photo()).max() < 40


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
def test_png_modes_equal_pillow_on_opaque_images(mode: str) -> None:
    data = save(Image.fromarray(photo()).convert(mode), "PNG")
    np.testing.assert_array_equal(decode_image(data).pixels, pillow_rgb(data))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_bit_identical_to_pillow(subsampling: str, progressive: bool) -> None:
    noisy = np.random.default_rng(1).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    data = save(Image.fromarray(noisy), "JPEG", subsampling=subsampling, progressive=progressive, quality=90)
    np.testing.assert_array_equal(decode_image(data).pixels, pillow_rgb(data))


def test_grey_jpeg_has_three_equal_channels() -> None:
    data = save(Image.fromarray(photo()).convert("L"), "JPEG")
    np.testing.assert_array_equal(decode_image(data).pixels, pillow_rgb(data))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})],
)
def test_other_lossless_formats_keep_every_pixel(kind: str, options: dict) -> None:
    image = decode_image(save(Image.fromarray(photo()), kind, **options))
    np.testing.assert_array_equal(image.pixels, photo())
    assert image.format == kind


def test_the_bytes_decide_not_the_name() -> None:
    assert decode_image(save(Image.fromarray(photo()), "PNG")).format == "PNG"  # nobody is told a name


def test_a_still_gif_and_avif_are_taken() -> None:
    still = save(Image.fromarray(photo()).convert("P"), "GIF")
    np.testing.assert_array_equal(decode_image(still).pixels, pillow_rgb(still))
    assert decode_image(save(Image.fromarray(photo()), "AVIF")).pixels.shape == (23, 31, 3)


def test_interlaced_png() -> None:
    # Pillow writes none: the seven passes of Adam7, filter 0.
    pixels = photo()
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(
        b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx] if pixels[y::dy, x::dx].size
    )
    header = struct.pack(">IIBBBBB", *SIZE, 8, 2, 0, 0, 1)
    data = bytearray(raw_png(*SIZE, 8, 2, rows))
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    np.testing.assert_array_equal(decode_image(bytes(data)).pixels, pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_one_pixel_wide_or_high(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 77, np.uint8)
    np.testing.assert_array_equal(decode_image(save(Image.fromarray(pixels), "PNG")).pixels, pixels)


def rows_16(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


def test_16_bit_grey_is_rounded() -> None:
    wide = np.linspace(0, 65535, 23 * 31).reshape(23, 31).astype(np.uint16)
    expected = np.rint(wide / 257).astype(np.uint8)
    image = decode_image(raw_png(*SIZE, 16, 0, rows_16(wide)))
    np.testing.assert_array_equal(image.pixels, expected[..., None].repeat(3, 2))
    assert "16 bits rounded to 8" in image.notes
    tiff = decode_image(save(Image.fromarray(wide), "TIFF"))
    np.testing.assert_array_equal(tiff.pixels, image.pixels)


def test_16_bit_rgb_and_rgba_are_rounded_not_cut() -> None:
    wide = np.random.default_rng(2).integers(0, 65536, (23, 31, 4)).astype(np.uint16)
    rgb = decode_image(raw_png(*SIZE, 16, 2, rows_16(np.ascontiguousarray(wide[..., :3]).reshape(23, -1))))
    np.testing.assert_array_equal(rgb.pixels, np.rint(wide[..., :3] / 257))
    rgba = decode_image(raw_png(*SIZE, 16, 6, rows_16(wide.reshape(23, -1))))
    weight = wide[..., 3:] / 65535
    assert np.abs(rgba.pixels - (wide[..., :3] / 257 * weight + 255 * (1 - weight))).max() <= 1.5  # rounded three times


def test_16_bit_colour_key() -> None:
    wide = np.array([[[1, 2, 3], [257, 514, 771]]], np.uint16)
    data = raw_png(2, 1, 16, 2, rows_16(wide.reshape(1, -1)), (b"tRNS", struct.pack(">3H", 1, 2, 3)))
    np.testing.assert_array_equal(decode_image(data).pixels, [[[255, 255, 255], [1, 2, 3]]])


def test_32_bit_pixels_and_16_bit_colour_tiff_are_rejected_by_name() -> None:
    assert rejected(save(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")) == RejectReason.UNSUPPORTED
    assert rejected(save(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF")) == RejectReason.UNSUPPORTED
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    tiff = struct.pack("<2sHI", b"II", 42, 8) + body
    tiff = tiff.ljust(122, b"\0") + struct.pack("<3H", 16, 16, 16) + bytes(6)
    assert rejected(tiff) == RejectReason.UNSUPPORTED


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_does(kind: str, orientation: int) -> None:
    from PIL import ImageOps

    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(Image.fromarray(photo()), kind, exif=with_orientation(orientation), **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data).pixels, expected)
    assert decode_image(data).pixels.shape == ((23, 31, 3) if orientation < 5 else (31, 23, 3))


def test_exif_after_the_pixels_of_a_png_is_found() -> None:
    exif = with_orientation(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    data = save(Image.fromarray(photo()), "PNG")
    image = decode_image(data[:-12] + chunk + data[-12:])
    np.testing.assert_array_equal(image.pixels, np.rot90(photo(), -1))


def test_a_plain_png_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("decoded by Pillow too")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    data = save(Image.fromarray(photo()), "PNG", exif=with_orientation(3))
    np.testing.assert_array_equal(decode_image(data).pixels, photo()[::-1, ::-1])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(orientation: int) -> None:
    data = save(Image.fromarray(photo()), "PNG", exif=with_orientation(orientation))
    np.testing.assert_array_equal(decode_image(data).pixels, photo())


def test_broken_exif_costs_no_image() -> None:
    data = save(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    np.testing.assert_array_equal(decode_image(data).pixels, pillow_rgb(data))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (64, 48, 3)])
def test_our_png_is_read_by_pillow_and_by_us(shape: tuple[int, ...]) -> None:
    for pixels in (np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8), np.full(shape, 255, np.uint8)):
        data = encode_png(pixels)
        np.testing.assert_array_equal(pillow_rgb(data), pixels)
        np.testing.assert_array_equal(decode_image(data).pixels, pixels)


def test_text_chunks_that_inflate_to_gigabytes_are_no_danger() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 5_000_000, zip=True)
    data = save(Image.fromarray(photo()), "PNG", pnginfo=info)
    assert len(data) < 50_000
    assert rejected(data) == RejectReason.TOO_LARGE
