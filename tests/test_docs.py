"""The README and the documentation show commands that parse, options that exist and files that are there."""

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.catalog import COMMANDS, groups, split_command
from cluster.commands import load
from cluster.options.fields import Option, options_of
from cluster.remote.addresses import take_target
from docs.hooks import commands, deviations, presets
from pipelines.settings.presets import PRESETS, preset
from sr3core.config import to_dict
from sr3core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPERATORS = {"&&", ";", "|", ">", "&"}
ELSEWHERE = {"build", "dist"}
"""Folders that a command makes."""


def segments(text: str) -> Iterator[list[str]]:
    """The commands of a shell script, each as its words; comments and continued lines are taken as a shell does."""
    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";&|>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for word in lexer:
        if word in OPERATORS:
            yield words
            words = []
        else:
            words.append(word)
    yield words


def command_lines(page: Path) -> Iterator[list[str]]:
    """The `sr3` commands of a page's shell blocks."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "sh":
            without_comments = re.sub(r"(^|\s)#[^\n]*", "", block)
            yield from (words[1:] for words in segments(without_comments) if words[:1] == ["sr3"])


def inline_commands(page: Path) -> Iterator[str]:
    """The `sr3 …` phrases of a page's prose."""
    for text in re.findall(r"`sr3 ([^`]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield re.sub(r"\s+", " ", text)


SHOWN = [(page, words) for page in PAGES for words in command_lines(page)]
MENTIONED = sorted({text for page in PAGES for text in inline_commands(page)})


@pytest.fixture
def parse(tmp_path: Path) -> Callable[[list[str]], None]:
    """Reads a command line by the command's own parser."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict(preset("small-16-64"))))

    def run(words: list[str]) -> None:
        _, words = take_target(words)
        if "--config" in words:  # the page's own file is the reader's
            words[words.index("--config") + 1] = str(config)
        if words != ["--help"]:
            name, arguments = split_command(words)
            load(name).read(arguments)

    return run


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{page.name}: {' '.join(words)}" for page, words in SHOWN])
def test_every_command_line_parses(page, words, parse):
    parse(words)
    if "--" in words:  # sr3 schedule … -- COMMAND
        parse(words[words.index("--") + 1 :])


@pytest.mark.parametrize(
    "words",
    [
        ["train", "small-16-46", "--data", "data", "--out", "run"],
        ["train", "small-16-64", "--data", "data", "--out", "run", "--optimiser.learning-rate", "1"],
        ["upscale", "photo.jpg"],
        ["serach", "--run", "run"],
    ],
)
def test_a_command_line_that_is_wrong_does_not_parse(words, parse):
    with pytest.raises((SystemExit, ConfigError)):
        parse(words)


def test_the_pages_show_and_mention_commands():
    assert {page.name for page, _ in SHOWN} >= {"README.md", "your-images.md", "prepare.md", "upscale.md"}
    assert len(SHOWN) > 50
    assert len(MENTIONED) > 30


def options(name: str) -> list[Option]:
    """The options of a command."""
    return options_of(commands.command_line(name).options)


@pytest.mark.parametrize("text", MENTIONED)
def test_every_command_in_prose_exists_and_so_do_its_options(text):
    words = [word for word in text.split() if word not in ("…", "--")]
    if words[0].startswith("--"):  # about sr3 itself
        _, words = take_target(words)
    if not words or words[0] in ("COMMAND", "--help"):
        return
    name, arguments = split_command(words)
    if name in groups():
        return
    assert name in COMMANDS, f"`sr3 {text}` names no command"
    known = {option.name for option in options(name)} | {"--config", "--help", "--help-all"}
    for word in arguments:
        if word.startswith("--"):
            option = word.partition("=")[0]
            staged = re.fullmatch(r"--[\w-]+\.(.+)", option)
            assert option in known or (staged and f"--{staged[1]}" in known), f"`sr3 {text}`: {option} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page):
    named = re.findall(r"`((?:sr3core|pipelines|tune|cluster|tests|docs|\.ci)/[\w./-]*)`", page.read_text())
    missing = [path for path in named if not re.search(r"[A-Z]{3}", path) and not (ROOT / path).exists()]
    assert not missing


def test_what_is_shown_and_mentioned_was_found():
    assert len(SHOWN) > 40
    assert len(MENTIONED) > 30


@pytest.mark.parametrize(("place", "names"), commands.pages().items())
def test_every_command_has_a_page_with_all_its_options(place, names):
    page = commands.page_of(place, names)
    for name in names:
        for option in options(name):
            switched_off = re.sub(r"(--|\.)([\w-]+)$", r"\1no-\2", option.name)
            assert re.search(rf"^`({re.escape(option.name)}|{re.escape(switched_off)})[ `]", page, re.MULTILINE)
        assert f"[`sr3 {name}`]({place}.md)" in commands.index_page()


def test_every_preset_has_its_section():
    page = presets.page()
    for name in PRESETS:
        assert f"\n## {name}\n" in page


def test_deviations_are_found_in_the_code():
    found = list(deviations.deviations())
    in_code = sum(
        path.read_text().count("Deviation:")
        for package in deviations.PACKAGES
        for path in (ROOT / package).rglob("*.py")
    )
    assert len(found) == in_code > 5


def test_the_readme_is_one_that_is_read():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def messages() -> str:
    """Every text in the code, one a line, with § where a value is filled in."""
    found = []
    for package in deviations.PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.append("".join(str(getattr(part, "value", "§")) for part in node.values))
    return "\n".join(re.sub(r"\s+", " ", text) for text in found)


def test_troubleshooting_quotes_messages_that_the_program_prints():
    code = messages()
    rows = re.findall(r"^\| ([^|]*`[^|]*) \|", (ROOT / "docs/how-to/troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    parts = [part.strip(" :;-") for text in quoted for part in re.split(r"…|\d+-\d+|v?\d+|\b[A-Z]\b", text)]
    long_enough = [part for part in parts if len(part) > 7]
    assert len(long_enough) > 12
    assert [part for part in long_enough if part not in code] == []


def test_contributing_names_what_its_files_hold():
    items = re.findall(
        r"^\d\. `([a-z\d_/]+\.py)`: (.*?)(?=^\d\. |^#|\Z)", PAGES[1].read_text(), re.MULTILINE | re.DOTALL
    )
    named = [(path, name) for path, text in items for name in re.findall(r"`(?:\w+\.)?([A-Za-z]\w+|_\w+)`", text)]
    assert len(named) > 10
    missing = [(path, name) for path, name in named if not re.search(rf"\b{name}\b", (ROOT / path).read_text())]
    assert missing == [("pipelines/prepare/sources/layouts.py", "_NAME")], "the name of a new one"
