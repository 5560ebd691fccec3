"""A record is what was encoded, in either format; its key is a function of name and bytes, its blur of seed and key."""

import numpy as np
import pytest

from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import parse_stages
from pipelines.shards.records import blur_sigmas, content_digest, encode_record, make_pixels, read_record, record_key
from sr3core.errors import DataError
from sr3core.images.resize import blur

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
SR3, BASE = parse_stages("8-16,base-8")


def config(**changes) -> PrepareConfig:
    return PrepareConfig(source="s", out="o", stages=("8-16",), **changes)


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_a_record_reads_back_as_it_was_encoded(image_format):
    settings = config(image_format=image_format, blur_variants=2)
    high, low = make_pixels(PIXELS, SR3)
    assert low is not None
    members = encode_record(settings, "key", high, low, 7, {"name": "a.jpg"})
    assert list(members) == [
        *(f"{name}.{image_format}" for name in ("hr", "lr", "lr_blur0", "lr_blur1")),
        *("cls", "json"),
    ]
    record = read_record("key", members)
    sigmas = blur_sigmas(settings, "key")
    np.testing.assert_array_equal(record.high, high)
    np.testing.assert_array_equal(record.low, low)
    assert (record.key, record.label) == ("key", 7)
    assert record.meta == {"name": "a.jpg", "blur_sigmas": sigmas}
    for image, sigma in zip(record.low_blurred, sigmas, strict=True):
        np.testing.assert_array_equal(image, blur(low, sigma))


def test_a_base_models_record_has_no_low_resolution():
    high, low = make_pixels(PIXELS, BASE)
    assert high.shape == (8, 8, 3)
    assert low is None
    record = read_record("key", encode_record(config(), "key", high, low, None, {}))
    assert record.low is None
    assert record.label is None
    np.testing.assert_array_equal(record.high, high)


def test_a_key_depends_on_name_and_bytes_alone():
    digest = content_digest(b"image")
    assert record_key("a.png", digest) == record_key("a.png", content_digest(b"image"))
    assert len({record_key("a.png", digest), record_key("b.png", digest), record_key("a.png", digest[::-1])}) == 3
    assert len(record_key("caf\udce9.png", digest)) == 20, "a name that is not valid UTF-8 has a key as well"


def test_blur_is_a_function_of_seed_and_key():
    settings = config(blur_variants=3, blur_sigma_max=2.0, seed=1)
    sigmas = blur_sigmas(settings, "key")
    assert sigmas == blur_sigmas(settings, "key")
    assert len(set(sigmas)) == 3
    assert all(0 <= sigma <= 2 for sigma in sigmas)
    assert sigmas != blur_sigmas(settings, "another")
    assert sigmas != blur_sigmas(config(blur_variants=3, blur_sigma_max=2.0, seed=2), "key")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"hr.png": None}, "record key: it has no hr.png or hr.webp among"),
        ({"hr.png": b"\x89PNG cut"}, "record key: hr is damaged .*; run `sr3 verify` on its folder"),
        ({"cls": b"dog"}, "record key: .*; run `sr3 verify` on its folder"),
        ({"json": b"{"}, "record key: .*; run `sr3 verify` on its folder"),
    ],
)
def test_a_missing_or_damaged_member_names_the_record(damage, message):
    members = encode_record(config(), "key", *make_pixels(PIXELS, SR3), 1, {})
    members = {name: data for name, data in {**members, **damage}.items() if data is not None}
    with pytest.raises(DataError, match=message):
        read_record("key", members)
