"""MkDocs hook: a page for every `sr3` command, from the catalog and the options that the command itself uses."""

import html
import re
from collections.abc import Iterator, Sequence
from importlib import import_module

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cluster.catalog import COMMANDS, ON_A_CLUSTER
from cluster.options.fields import Option, options_of
from cluster.options.reading import CommandLine
from pipelines.settings.presets import preset

FOLDER = "reference/commands"
PRESET = "small-16-64"
"""Whose options stand for those of every preset."""
NOTES = {
    "train": f"The options are those of the preset. Shown here are `{PRESET}`'s, with its defaults; every preset has"
    " the same ones with its own defaults, and in a preset of several stages each carries the stage's name:"
    " `--64-256.batch-size 128`. `--config FILE` in place of a preset takes what `--print-config` wrote, or the"
    " `config.json` of any run. [All presets](../presets.md).",
    "sweep": f"The options are those of the preset. Shown here are `{PRESET}`'s.",
    "ablate": f"The options are those of the preset, which must be one SR3 stage. Shown here are `{PRESET}`'s.",
}


def pages() -> dict[str, list[str]]:
    """First word of a command -> the commands on its page: those of one group share a page."""
    found: dict[str, list[str]] = {}
    for name in COMMANDS:
        found.setdefault(name.split()[0], []).append(name)
    return found


def command_line(name: str) -> CommandLine:
    """The command line of a command; that of a preset, where the options depend on one."""
    module = import_module(f"cluster.commands.{COMMANDS[name].module}")
    return module.COMMAND_LINE if hasattr(module, "COMMAND_LINE") else module.command_line_of(preset(PRESET))


def groups_of(options: Sequence[Option]) -> Iterator[tuple[str, list[Option]]]:
    """The options by their prefix, those without one first: "" and `--data`, "optimizer" and its options."""
    found: dict[str, list[Option]] = {"": []}
    for option in options:
        found.setdefault(option.name.removeprefix("--").rpartition(".")[0], []).append(option)
    yield from found.items()


def _most_used_first(options: Sequence[Option], line: CommandLine) -> list[Option]:
    """The options, those that `--help` shows before the others."""
    order = {name: place for place, name in enumerate(line.essential)}
    return sorted(options, key=lambda option: order.get(option.name, len(order)))


def page_of(page: str, names: Sequence[str]) -> str:
    """A page, Markdown."""
    lines = [f"# sr3 {page}", ""]
    lines += [f"{NOTES[page]}\n"] if page in NOTES else []
    for name in names:
        line = command_line(name)
        heading = "##" if len(names) == 1 else "###"
        lines += [f"## sr3 {name}", ""] if len(names) > 1 else []
        lines += [] if page in NOTES else [" ".join((line.options.__doc__ or "").split()), ""]
        lines += ["```bash", *line.examples, "```", ""]
        for prefix, options in groups_of(options_of(line.options)):
            lines += [f"{heading} {prefix}", ""] if prefix else []
            lines += [text for option in _most_used_first(options, line) for text in _definition(option)]
    return "\n".join(lines) + "\n"


def _definition(option: Option) -> list[str]:
    """A definition list's item, which a telephone can show and a table of six hundred options cannot."""
    is_required = option.default is None and not (option.is_positional and option.is_many)
    note = " (required)" if is_required else f" (default `{option.default}`)" if option.default else ""
    usage = re.sub(r"(--|\.)([\w-]+)$", r"\1no-\2", option.name) if option.default == "True" else option.usage
    return [f"`{usage}`{note if option.default != 'True' else ''}", f":   {_escaped(option.help) or '…'}", ""]


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
    chain = [name for name in COMMANDS if name not in ON_A_CLUSTER]
    for title, names in (("From images to a report", chain), ("On a cluster", ON_A_CLUSTER)):
        lines += [f"## {title}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`sr3 {name}`]({name.split()[0]}.md) | {COMMANDS[name].summary} |" for name in names]
        lines += [""]
    return "\n".join([*lines, EVERY_COMMAND])


EVERY_COMMAND = """## Every command

- resumes, or reuses what is done, when you give the same command again;
- has `--help` with the options that people use, `--help-all` with every option, `--dry-run` if it changes anything, and
  `--print-config` and `--config` if it has a configuration;
- exits with 0 when everything is done, 1 when it failed in whole or in part, 2 when it was used wrongly, 130 after
  Ctrl-C, and 143 after SIGTERM, which stops it in the same way; a second signal ends it at once;
- runs on a cluster with `--address` ([how](../../how-to/cluster.md)): `http://HOST:8265` submits it as a job;
  `--working-dir DIR` uploads the files that git tracks in DIR; `--detach` does not follow the job's log.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    contents = {"index": index_page()} | {page: page_of(page, names) for page, names in pages().items()}
    for name, content in contents.items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=content))
    return files
