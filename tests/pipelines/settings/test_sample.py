"""Settings of drawing images from noise: classes are parsed in their order, nonsense is refused by name."""

import pytest

from pipelines.settings.sample import SampleConfig, parse_classes
from sr3core.errors import ConfigError


def test_classes_are_single_ones_and_inclusive_ranges_in_their_order():
    assert parse_classes("207") == (207,)
    assert parse_classes("3-5, 1,0-0") == (3, 4, 5, 1, 0)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "1-2-3"])
def test_what_is_neither_a_class_nor_a_range_is_refused(text):
    with pytest.raises(ConfigError, match=r"^classes: .* is neither a class nor a range such as 0-9$"):
        SampleConfig(classes=text)


@pytest.mark.parametrize("changes", [{"num_images": 0}, {"first": -1}, {"batch": 0}, {"num_actors": 0}])
def test_bad_values_are_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(ConfigError, match=rf"^{name}: "):
        SampleConfig(**changes)


def test_the_numbers_of_the_images_are_a_range():
    assert SampleConfig(first=5, num_images=3).numbers == range(5, 8)
