"""Names of stages that make no sense are refused."""

import pytest

from pipelines.settings.stages import parse_stages, stage_name
from sr3core.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "",
        "16",
        "16-",
        "128-16",
        "base-",
        "0-16",
        "16-128,16-128",
        "a-b",
        "16-16",
        "64x64-128",
        "8x12-16x25",
        "8x12-16",
        "8x12-8x24",
        "base-64x64",
    ],
)
def test_bad_stages_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="stages"):
        parse_stages(text)


def test_a_scale_need_not_be_whole() -> None:
    assert [(spec.low_size, spec.high_size) for spec in parse_stages("25-128,48-128")] == [(25, 128), (48, 128)]


def test_rectangles_are_named_by_height_and_width() -> None:
    (wide, base) = parse_stages("64x96-256x384,base-32x48")
    assert (wide.low_size, wide.high_size, wide.scale) == ((64, 96), (256, 384), 4)
    assert stage_name(wide.low_size, wide.high_size) == wide.name
    assert (base.low_size, base.high_size, base.scale) == (None, (32, 48), None)
