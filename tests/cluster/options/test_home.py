"""`~` in options and configurations: a shell expands it only at the beginning of a word."""

import codecs
import json
import os
import re

import pytest

from cluster.cli import main
from cluster.commands import load
from cluster.options.fields import home_expanded, paths_in
from cluster.options.reading import read_config, split_config
from pipelines.evaluation.image_sets import read_labels
from sr3core.errors import ConfigError
from tests.cluster.remote.test_job_rules import ARGUMENTS

HOME = os.path.expanduser("~")


def test_the_home_folder_is_found_in_every_option_that_holds_paths(tmp_path):
    words = ["--outputs", "gan=~/gan", "--references=~/originals", "--out=~/x.json"]
    options = home_expanded(load("evaluate").read(words))
    assert options.outputs == (f"gan={HOME}/gan",)
    assert (options.references, options.out) == (f"{HOME}/originals", f"{HOME}/x.json")


def test_the_home_folder_is_found_in_a_configuration(tmp_path):
    file = tmp_path / "prepare.json"
    file.write_text(json.dumps({"source": "~/photos", "out": "~/data", "stages": ["16-64"]}))
    options = home_expanded(load("prepare").read(["--config", str(file)]))
    assert (options.config.source, options.config.out) == (f"{HOME}/photos", f"{HOME}/data")


@pytest.mark.parametrize("command", ARGUMENTS)
def test_no_option_that_holds_paths_is_left_out(command):
    """The options' types say which they are, at every command."""
    words = [re.sub(r"^(\w+=)?/", r"\1~/", word) for word in ARGUMENTS[command].split()]
    options = load(command).read(words)
    written = {path for _, path in paths_in(options) if path.startswith("~/")}
    found = {path for _, path in paths_in(home_expanded(options))}
    assert written
    assert {HOME + path[1:] for path in written} <= found
    assert not [path for path in found if path.startswith("~")]


def test_a_run_command_finds_the_home_folder(capsys):
    assert main(["status", "~/no such run"]) == 1
    assert f"{HOME}/no such run" in capsys.readouterr().err


def test_the_home_folder_of_this_machine_is_none_of_a_jobs(capsys):
    """A job would look into that of the user it runs as, on its node."""
    words = ["--address", "http://127.0.0.1:1", "prepare", "--source=~/in", "--out", "/shared/out", "--stages", "8-16"]
    assert main(words) == 2
    assert "--source: ~/in is relative, and a job starts in a temporary folder" in capsys.readouterr().err


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path):
    file = tmp_path / "c.json"
    file.write_text('{"source": "é"}', encoding="utf-8-sig")
    assert read_config(str(file)) == {"source": "é"}


def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path):
    """Excel writes one."""
    file = tmp_path / "labels.csv"
    file.write_bytes(codecs.BOM_UTF8 + b"file,label\r\na.png,7\r\n")
    assert read_labels(str(file), ["a"]) == [7]


@pytest.mark.parametrize("arguments", [["--config"], ["--config", "--data", "x"], ["--config="]])
def test_a_configuration_that_is_not_named_is_missed(arguments):
    with pytest.raises(ConfigError, match="--config: needs a value, the JSON file"):
        split_config(arguments)
