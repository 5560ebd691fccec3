"""Names of stages that make no sense are refused."""

import pytest

from pipelines.settings.stages import parse_stages
from sr3core.errors import ConfigError


@pytest.mark.parametrize("text", ["", "16", "16-", "128-16", "base-", "0-16", "16-128,16-128", "a-b", "16-16"])
def test_bad_stages_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="stages"):
        parse_stages(text)


def test_a_scale_need_not_be_whole() -> None:
    assert [(spec.low_size, spec.high_size) for spec in parse_stages("25-128,48-128")] == [(25, 128), (48, 128)]
