"""PNGs through the fast decoder: the pixels that an encoder of our own, filter by filter, put in."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.images.fast_png import PngWriter, decode_png_rgb, encode_png
from pipelines.images.png import check_png, decode_png

CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def predicted(kind: int, left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """What a filter of the PNG specification (section 9.2) subtracts from each byte."""
    left, above, corner = (part.astype(int) for part in (left, above, corner))
    distances = np.stack([abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)])
    paeth = np.choose(distances.argmin(axis=0), [left, above, corner])  # the first of equals, as specified
    return [np.zeros_like(left), left, above, (left + above) // 2, paeth][kind]


def filtered_png(rows: np.ndarray, depth: int, colour_type: int, filters: list[int]) -> bytes:
    """Encode rows of bytes (H, W * bytes a pixel), row i with filters[i mod len]."""
    step = CHANNELS[colour_type] * depth // 8
    height, width = rows.shape[0], rows.shape[1] // step
    padded = np.pad(rows, ((1, 0), (step, 0)))
    body = b""
    for i in range(height):
        kind = filters[i % len(filters)]
        guess = predicted(kind, padded[i + 1, :-step], padded[i, step:], padded[i, :-step])
        body += bytes([kind]) + (rows[i] - guess).astype(np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def pixel_bytes(seed: int, height: int, width: int) -> np.ndarray:
    """Rows that are smooth here and wild there, so that every branch of a filter is taken."""
    generator = np.random.Generator(np.random.Philox(seed))
    smooth = np.cumsum(generator.integers(-3, 4, (height, width)), axis=1)
    wild = generator.integers(0, 256, (height, width))
    return np.where(generator.random((height, width)) < 0.3, wild, smooth % 256).astype(np.uint8)


sizes, seeds = st.integers(1, 40), st.integers(0, 2**32)
filters = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@given(seed=seeds, height=sizes, width=sizes, filters=filters)
def test_rgb_of_any_size_and_any_filters_is_decoded_to_its_bytes(seed, height, width, filters):
    rows = pixel_bytes(seed, height, 3 * width)
    pixels = decode_png_rgb(filtered_png(rows, 8, 2, filters))
    np.testing.assert_array_equal(pixels, rows.reshape(height, width, 3))


@given(seed=seeds, height=sizes, width=sizes, filters=filters, colour_type=st.sampled_from(sorted(CHANNELS)))
def test_16_bits_of_every_kind_are_rounded_whatever_the_filters(seed, height, width, filters, colour_type):
    channels = CHANNELS[colour_type]
    rows = pixel_bytes(seed, height, 2 * channels * width)
    data = filtered_png(rows, 16, colour_type, filters)
    rgb, alpha = decode_png(data, check_png(data))
    wide = np.rint(rows.view(">u2").reshape(height, width, channels) / 257)
    colours = wide[..., :3] if channels > 2 else wide[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(rgb, colours)
    if channels in (2, 4):
        np.testing.assert_array_equal(alpha, wide[..., -1])
    else:
        assert alpha is None


@given(seed=seeds, height=sizes, width=sizes)
def test_what_is_encoded_is_decoded(seed, height, width):
    pixels = pixel_bytes(seed, height, 3 * width).reshape(height, width, 3)
    np.testing.assert_array_equal(decode_png_rgb(encode_png(pixels)), pixels)


@given(seed=seeds, data=st.data())
def test_a_record_that_is_cut_or_has_a_byte_changed_before_its_end_chunk_is_an_error(seed, data):
    png = encode_png(pixel_bytes(seed, 9, 21).reshape(9, 7, 3))
    with pytest.raises(ValueError, match=r"\w"):
        decode_png_rgb(png[: data.draw(st.integers(0, len(png) - 13))])
    damaged = bytearray(png)
    damaged[data.draw(st.integers(8, len(png) - 13))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r"\w"):
        decode_png_rgb(bytes(damaged))


def test_a_png_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="Grayscale"):
        decode_png_rgb(encode_png(np.zeros((4, 4, 1), np.uint8)))


def test_a_header_that_states_more_pixels_than_the_file_can_hold_is_an_error():
    data = bytearray(encode_png(pixel_bytes(0, 9, 21).reshape(9, 7, 3)))
    data[16] = 0x67  # the highest byte of the width
    with pytest.raises(ValueError, match=r"states 1728053255x9 pixels, more than \d+ bytes can hold"):
        decode_png_rgb(bytes(data))
    flat = encode_png(np.zeros((3000, 3000, 3), np.uint8))
    assert decode_png_rgb(flat).shape == (3000, 3000, 3), "even the most compressible image can be read"


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
