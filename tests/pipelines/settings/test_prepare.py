"""Settings of a preparation that make no sense are refused by name."""

import pytest

from pipelines.settings.prepare import PrepareConfig
from sr3core.config import fingerprint
from sr3core.errors import ConfigError


def test_bad_values_are_refused() -> None:
    for changes in (
        {"validation_fraction": 1.5},
        {"validation_fraction": 0.6, "test_fraction": 0.6},
        {"samples_per_shard": 0},
        {"shard_bytes": -1},
        {"blur_variants": -1},
        {"num_workers": 0},
        {"crops_per_image": 2},
        {"max_flat": 0.5},
        {"crops_per_image": 0, "crop": "native"},
        {"max_flat": 1.5, "crop": "native"},
        {"align_faces": True, "crop": "native"},
    ):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            PrepareConfig(source="s", out="o", stages=("8-16",), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"stages": ("16-128", "64-256")}, 1000),
        ({"stages": ("64-256",), "samples_per_shard": 3000}, 2151),
        ({"stages": ("64-256", "256-1024")}, 138),
        ({"stages": ("base-1024",)}, 147),
        ({"stages": ("256-1024",), "image_format": "webp"}, 218),
        ({"stages": ("256-1024",), "samples_per_shard": 50}, 50),
        ({"stages": ("256-1024",), "shard_bytes": 0}, 1000),
        ({"stages": ("256-1024",), "shard_bytes": 1}, 1),
        ({"stages": ("256-1024",), "crop": "native", "crops_per_image": 10}, 13),
        ({"stages": ("256-1024",), "blur_variants": 4}, 112),
    ],
)
def test_a_shard_is_full_by_its_samples_or_its_bytes_whichever_comes_first(changes, images) -> None:
    assert PrepareConfig(source="s", out="o", **changes).images_per_shard == images


def test_the_default_is_no_part_of_a_fingerprint_so_that_preparations_of_before_go_on() -> None:
    default, same, other = (
        fingerprint(PrepareConfig(source="s", out="o", stages=("64-256",), shard_bytes=num_bytes))
        for num_bytes in (PrepareConfig(source="s", out="o", stages=("64-256",)).shard_bytes, 256_000_000, 1)
    )
    assert default == same == "5db21da7139e74b3"
    assert other != same
