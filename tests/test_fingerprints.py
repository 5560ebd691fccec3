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
    "faces-16-128": "c2545e874a9010e4",
    "faces-64-512": "1884838996d24313",
    "faces-16x": "0d6edc2645e1a3f5",
    "imagenet-64-256": "1342c2158195da6c",
    "faces-cascade": "3f5fc5f35da8c7fe",
    "imagenet-cascade": "5dd9dd1a9defb412",
    "table-1": "f8108d095a036fc2",
    "table-2": "3bccc36facd36683",
    "table-5-no-blur": "34a63c4cc78b22c7",
    "table-5-l2": "5dfaf512d9b0f014",
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
