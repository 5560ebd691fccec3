"""`--help`: the options that people use, on one screen. `--help-all`: every option with its full text."""

import itertools
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence

from cluster.options.fields import Option

WIDEST = 100
"""Columns; longer lines are hard to read."""
BRIEF = 100
"""Characters of an option's text beyond which only its first sentence or clause is shown."""
WIDEST_NAME = 29
"""Columns of the options' names; a longer one has a line of its own."""


def help_text(
    usage: str, summary: str, options: Sequence[Option], num_options: int, examples: Sequence[str], notes: Sequence[str]
) -> str:
    """The help of a command.

    Args:
        usage: what follows `usage: `.
        summary: what the command does.
        options: those to show.
        num_options: how many there are in all.
        examples: command lines.
        notes: paragraphs between options and examples.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = _head(usage, summary, width)
    rows = [(option.usage, brief(option)) for option in options]
    rows.append(
        ("--help-all", f"Show all {num_options} options." if num_options > len(options) else "Show full texts.")
    )
    lines += _table(rows, width)
    for note in notes:
        lines += ["", *_wrapped(note, width)]
    lines += ["", "examples:" if len(examples) > 1 else "example:"]
    for example in examples:
        lines += [f"  {line}" for line in _command(example, width - 2)]
    return "\n".join(lines)


def full_text(usage: str, summary: str, options: Sequence[Option]) -> str:
    """The help of a command with every option, those with a common prefix together."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = _head(usage, summary, width)
    for number, (_, group) in enumerate(itertools.groupby(options, _prefix)):
        lines += [""] * (number > 0)
        lines += _table([(option.usage, _with_default(option, option.help)) for option in group], width)
    return "\n".join(lines)


def _prefix(option: Option) -> str:
    """`--optimizer.` of --optimizer.learning-rate."""
    return option.name.rpartition(".")[0]


def _head(usage: str, summary: str, width: int) -> list[str]:
    return [*_wrapped(f"usage: {usage}", width, 7), "", *_wrapped(summary, width), ""]


def _table(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    left = min(max(len(name) for name, _ in rows), WIDEST_NAME)
    return [line for name, text in rows for line in _row(name, text, left, width)]


def brief(option: Option) -> str:
    """An option's help text, cut after a sentence or a clause where it is long, and its default."""
    first = option.help
    for end in (r"(?<=\.)\s", r"(?<=;)\s", r"(?<=:)\s"):
        if len(first) > BRIEF:
            first = re.split(end, first)[0]
    return _with_default(option, first.rstrip(".;:") + ".")


def _with_default(option: Option, text: str) -> str:
    if option.default is None and not option.is_positional:
        return f"{text} (required)"
    return f"{text} (default: {option.default})" if option.default else text


def listed(summaries: Mapping[str, str]) -> list[str]:
    """Names and what they are, as aligned lines."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    left = max(map(len, summaries))
    return [line for name, summary in summaries.items() for line in _row(name, summary, left, width)]


def _row(name: str, text: str, left: int, width: int) -> list[str]:
    lines = textwrap.wrap(text, width - left - 4, break_on_hyphens=False, break_long_words=False) or [""]
    if len(name) > left:
        return [f"  {name}", *(f"  {'':<{left}}  {line}" for line in lines)]
    return [f"  {name:<{left}}  {lines[0]}", *(f"  {'':<{left}}  {line}" for line in lines[1:])]


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _command(example: str, width: int) -> list[str]:
    """A command line, continued as a shell reads it."""
    lines = textwrap.wrap(example, width - 2, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]
