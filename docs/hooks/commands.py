"""MkDocs hook: a page for every `sr3` command, read from the parser that the command itself uses."""

import argparse
import html
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import tyro
import tyro.extras
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cluster.cli import CLUSTER_COMMANDS, COMMANDS, command_of

FOLDER = "reference/commands"
PRESET = "small-16-64"
"""Whose options stand for those of every preset."""
VARIANTS = {
    "train": [["train", PRESET]],
    "ablate": [["ablate", PRESET]],
    "study": [["study", "new"], ["study", "serve"], ["study", "results"]],
}
"""Commands whose options depend on their first argument."""
NOTES = {
    "train": f"The options are those of the preset. Shown here are `{PRESET}`'s, with its defaults; every preset has"
    " the same ones with its own defaults, and in a preset of several stages each carries the stage's name:"
    " `--64-256.batch-size 128`. `--config FILE` in place of a preset takes what `--print-config` wrote, or the"
    " `config.json` of any run. [All presets](../presets.md).",
    "ablate": f"The options are those of the preset, which must be one SR3 stage. Shown here are `{PRESET}`'s.",
    "prepare": "`--config FILE` takes what `--print-config` wrote.",
}


class Captured(Exception):  # noqa: N818 - no error: it carries what a command was about to parse
    """What a command hands to tyro.cli."""

    def __init__(self, options: type, keywords: dict[str, Any]) -> None:
        super().__init__()
        self.options, self.keywords = options, keywords


@dataclass(frozen=True, slots=True)
class Option:
    """One option or argument of a command."""

    syntax: str
    """As it is typed: `--tile INT`."""
    default: str
    """Empty for a switch or a required option."""
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Options under one heading of a command's help."""

    title: str
    """Empty for the command's own."""
    text: str
    options: tuple[Option, ...]


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser of a command, given as the words that choose it: ["train", "small-16-64"]."""
    name, *arguments = words

    def capture(options: type, **keywords: Any) -> None:
        raise Captured(options, keywords)

    original, tyro.cli = tyro.cli, capture  # type: ignore[assignment]
    try:
        command_of(name)(arguments)
    except Captured as captured:
        keywords = {key: captured.keywords[key] for key in ("prog", "description", "default", "config")}
        with warnings.catch_warnings():  # tyro keeps get_parser for tools like this one, and says that it may go
            warnings.simplefilter("ignore", DeprecationWarning)
            return cast(argparse.ArgumentParser, tyro.extras.get_parser(captured.options, **keywords))
    finally:
        tyro.cli = original
    raise AssertionError(f"sr3 {name} parses no options")


def groups_of(parser: argparse.ArgumentParser) -> Iterator[Group]:
    """The options of a command, the command's own first."""
    for group in parser._action_groups:
        options = tuple(_option(action) for action in group._group_actions if action.dest != "help")
        if options:
            title = "" if group.title in ("options", "positional arguments") else str(group.title)
            yield Group(title, group.description or "", options)


def _option(action: argparse.Action) -> Option:
    """An action as a reader needs it; tyro writes the default at the end of the help."""
    text = re.sub(r"\s+", " ", action.help or "")
    found = re.search(r" ?\((?:default: (?P<default>.*)|(?P<required>required))\)$", text)
    text = text[: found.start()] if found else text
    default = (found["default"] or "") if found else ""
    if not action.option_strings:
        return Option(action.dest.upper(), "", action.nargs != "*", text)
    name = action.option_strings[0]
    if action.nargs == 0:
        return Option(name if default != "True" else action.option_strings[1], "", False, text)
    metavar = re.sub(r"\[(\w+|\{.*?\}) \[.*", r"\1 …", str(action.metavar or "").replace("{None}|", ""))
    default = "" if default == "None" else default
    return Option(f"{name} {metavar}".strip(), default, bool(found and found["required"]), text)


def page_of(name: str, summary: str) -> str:
    """The page of a command, Markdown."""
    lines = [f"# sr3 {name}", "", summary[0].upper() + summary[1:] + ".", ""]
    if name in NOTES:
        lines += [NOTES[name], ""]
    variants = VARIANTS.get(name, [[name]])
    for words in variants:
        parser = parser_of(words)
        if len(variants) > 1:
            lines += [f"## sr3 {' '.join(words)}", ""]
        if name not in NOTES:
            lines += [parser.description or "", ""]
        for group in groups_of(parser):
            if group.title:
                lines += [f"{'###' if len(variants) > 1 else '##'} {group.title}", "", group.text, ""]
            lines += [line for option in group.options for line in _definition(option)]
    return "\n".join(lines) + "\n"


def _definition(option: Option) -> list[str]:
    """A definition list's item, which a telephone can show and a table of six hundred options cannot."""
    note = " (required)" if option.required else f" (default `{option.default}`)" if option.default else ""
    return [f"`{option.syntax}`{note}", f":   {_escaped(option.text) or '…'}", ""]


def _escaped(text: str) -> str:
    """Text with nothing that Markdown would take for its own, but for `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if index % 2 else re.sub(r"([*_<\[])", r"\\\1", html.unescape(part)) for index, part in enumerate(parts)
    )


def index_page() -> str:
    """The list of commands, Markdown."""
    lines = [
        "# Commands",
        "",
        "```text",
        "sr3 [--address URL [--working-dir DIR] [--detach]] COMMAND [OPTIONS]",
        "```",
        "",
    ]
    for title, commands in (("From images to a report", COMMANDS), ("On a cluster", CLUSTER_COMMANDS)):
        lines += [f"## {title}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`sr3 {name}`]({name}.md) | {summary} |" for name, summary in commands.items()]
        lines += [""]
    return "\n".join([*lines, EVERY_COMMAND])


EVERY_COMMAND = """## Every command

- resumes, or reuses what is done, when you give the same command again;
- has `--help`, `--dry-run` if it changes anything, and `--print-config` if it has a configuration;
- exits with 0 when everything is done, 1 when it failed in whole or in part, 2 when it was used wrongly, 130 after
  Ctrl-C;
- runs on a cluster with `--address` ([how](../../how-to/cluster.md)): `http://HOST:8265` submits it as a job;
  `--working-dir DIR` uploads the files that git tracks in DIR; `--detach` does not follow the job's log.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    pages = {"index": index_page()}
    pages |= {name: page_of(name, summary) for name, summary in {**COMMANDS, **CLUSTER_COMMANDS}.items()}
    for name, content in pages.items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=content))
    return files
