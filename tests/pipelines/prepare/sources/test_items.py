"""Items of a source are in the order of their names, and a name that occurs twice is marked."""

import random

from pipelines.prepare.sources.items import SourceItem, in_order


def test_a_repeated_name_is_marked_whatever_the_order_of_the_listing():
    items = [SourceItem("b", "x.tar", "range", 0, 1), SourceItem("a", "y.tar"), SourceItem("b", "x.tar", "range", 9, 1)]
    for seed in range(6):
        ordered = in_order(random.Random(seed).sample(items, 3))
        assert [(item.name, item.offset, item.how) for item in ordered] == [
            ("a", 0, "file"),
            ("b", 0, "range"),
            ("b", 9, "repeated"),
        ]
