"""`~` in options and configurations: a shell expands it only at the beginning of a word."""

import json
import os

import pytest

from cluster.commands import load
from cluster.options.reading import read_config, split_config
from sr3core.errors import ConfigError

HOME = os.path.expanduser("~")


def test_the_home_folder_is_found_in_every_option_that_holds_paths(tmp_path):
    options = load("evaluate").read(["--outputs", "gan=~/gan", "--references=~/originals", "--out=~/x.json"])
    assert options.outputs == (f"gan={HOME}/gan",)
    assert (options.references, options.out) == (f"{HOME}/originals", f"{HOME}/x.json")


def test_the_home_folder_is_found_in_a_configuration(tmp_path):
    file = tmp_path / "prepare.json"
    file.write_text(json.dumps({"source": "~/photos", "out": "~/data", "stages": ["16-64"]}))
    options = load("prepare").read(["--config", str(file)])
    assert (options.config.source, options.config.out) == (f"{HOME}/photos", f"{HOME}/data")


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path):
    file = tmp_path / "c.json"
    file.write_text('{"source": "é"}', encoding="utf-8-sig")
    assert read_config(str(file)) == {"source": "é"}


@pytest.mark.parametrize("arguments", [["--config"], ["--config", "--data", "x"], ["--config="]])
def test_a_configuration_that_is_not_named_is_missed(arguments):
    with pytest.raises(ConfigError, match="--config: needs a value, the JSON file"):
        split_config(arguments)
