"""The help of every command: one screen by default, every option with --help-all, nothing listed that is not there."""

import itertools
import re
from importlib import import_module

import pytest

from cluster.catalog import COMMANDS, groups
from cluster.cli import main
from cluster.options.fields import options_of
from cluster.options.reading import CommandLine
from pipelines.settings.presets import PRESETS, preset

WITH_PRESETS = ("train", "ablate", "sweep")
LINES, COLUMNS = 40, 80
COMMAND_LINES = [
    *(name for name in COMMANDS if name not in WITH_PRESETS),
    *(f"train {name}" for name in PRESETS),
    *("ablate small-16-64", "ablate imagenet-64-256", "sweep small-16-64"),
]


@pytest.fixture(autouse=True)
def a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def printed(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [*COMMAND_LINES, *WITH_PRESETS])
def test_the_help_of_every_command_fits_on_one_screen_and_ends_with_examples(command, capsys):
    text = printed(capsys, *command.split(), "--help")
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert re.search(r"\nexamples?:\n  sr3 ", text)


@pytest.mark.parametrize("command", ["", *groups()])
def test_the_lists_of_commands_fit_on_one_screen(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_all_options_are_those_that_the_parser_knows(command, capsys):
    """Our list of the options, which --help, --help-all and the path checks use, is that of the parser."""
    with pytest.raises(SystemExit):
        line_of(command).parser_help()
    text = capsys.readouterr().out
    listed = set(re.findall(r"^(?:│ |  )(--\w[\w.-]*)", text, re.MULTILINE)) - {"--help"}
    ours = {option.name for option in options_of(line_of(command).options) if not option.is_positional}
    negations = {
        re.sub(r"(--|\.)([\w-]+)$", r"\1no-\2", name) for name in ours
    }  # of a switch, on a line of its own if long
    assert listed - negations == ours


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_help_all_has_every_option_with_its_whole_text_and_is_wrapped_once(command, capsys):
    text = printed(capsys, *command.split(), "--help-all")
    lines = text.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= COLUMNS
    said = " ".join(text.split())
    for option in options_of(line_of(command).options):
        assert option.usage in said
        assert " ".join(option.help.split()) in said
    # Wrapped twice, a text has lines that end where its next word had room.
    rows = [line for line in lines if line.strip()]
    for line, following in itertools.pairwise(rows):
        indent = len(following) - len(following.lstrip())
        if indent > 6 and len(line) - len(line.lstrip()) == indent:
            assert len(line) + 1 + len(following.split()[0]) > COLUMNS


def line_of(command: str) -> CommandLine:
    first, _, name = command.partition(" ")
    if first in WITH_PRESETS:
        return import_module(f"cluster.commands.{first}").command_line_of(preset(name))
    return import_module(f"cluster.commands.{COMMANDS[command].module}").COMMAND_LINE


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_required_options_are_always_shown(command):
    line = line_of(command)
    every = options_of(line.options)
    shown = {option.name for option in line.shown(every)}
    assert {option.name for option in every if option.default is None} <= shown


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_every_option_has_a_help_text(command):
    assert not [option.name for option in options_of(line_of(command).options) if not option.help]


def test_config_and_address_are_in_the_help_where_they_are_options():
    for command in COMMAND_LINES:
        line = line_of(command)
        shown, every = set(line.essential), {option.name for option in options_of(line.options)}
        assert {"--config", "--address"} & every <= shown


def test_options_of_stages_are_shown_once_with_how_to_address_one(capsys):
    text = printed(capsys, "train", "faces-cascade", "--help")
    assert text.count("num-steps INT") == 1
    assert "--STAGE.num-steps INT" in text
    assert "STAGE is one of base-64, 64-256, 256-1024" in text


def test_a_default_that_differs_between_stages_says_so(capsys):
    assert "(default: depends on the stage)" in printed(capsys, "train", "demo", "--help")
