"""Fingerprints of configurations, pinned: one that changes makes every run, shard and search that is there another's.

A new field belongs here only by not being seen: give it the metadata ADDED and the default that means "as before".
"""

import pytest

from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import PRESETS, preset
from sr3core.config import fingerprint, override
from tune.search.settings import SearchConfig

PINNED = {
    "demo": "db26b7e6e69ef581",
    "small-16-64": "00514bbd8e335cc7",
    "small-cascade": "386114e0bb21f054",
    "small-classes": "5be6c117281560fc",
    "photos-4x": "d610fcc8009294d9",
    "photos-4x-real": "9044e0b5e4527387",
    "fields": "cf6519eee2c109d3",
    "faces-16-128": "e9403b2b4eeeb630",
    "faces-64-512": "cc8f1a0044909ac3",
    "faces-16x": "141d5986ca7621df",
    "faces-512-crops": "326d2febd2ba35c8",
    "faces-1024-crops": "c2941e6678cdfd4c",
    "imagenet-64-256": "9ebd02b56086f834",
    "faces-cascade": "1546ccfe273431bd",
    "imagenet-cascade": "1a6502fbf2b61b8d",
    "table-1": "e1368b1fdf2a1f67",
    "table-2": "a013881976d35fd5",
    "table-5-no-blur": "4c168834dc23819d",
    "table-5-l2": "6d78726c86c7fa76",
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_fingerprint_stays(name):
    assert fingerprint(preset(name)) == PINNED[name]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PrepareConfig(source="a", out="b", stages=("16-64",)), "5e312acbac5c9372"),
        (SearchConfig(stage="16-64"), "03905dab0c10303c"),
        (EvaluateConfig(), "62f5ff26744c64ec"),
    ],
    ids=["prepare", "search", "evaluate"],
)
def test_the_fingerprint_of_every_commands_settings_stays(config, expected):
    assert fingerprint(config) == expected


def test_an_added_field_counts_once_it_is_used():
    stage = preset("demo").stages[0]
    assert fingerprint(stage) != fingerprint(override(stage, model__unet__num_heads=2))
