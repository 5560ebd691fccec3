"""How each command is called in the drive, and which of its options take a place; both are found from the catalog."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.catalog import COMMANDS
from cluster.options.fields import Option, options_of
from pipelines.settings.presets import preset

STUDY = (
    *("--task", "1", "--num-images", "6", "--subjects-per-model", "4", "--trials-per-subject", "4", "--contact", "a"),
    *("--num-attention-checks", "1", "--num-practice-trials", "1"),
)
SCHEDULED = ("train", "--config", "{root}/train.json", "--data", "/data", "--out", "/run")
CALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "prepare": (("--source", "{root}/photos", "--out", "{root}/new", "--stages", "8-16"),),
    "train": (
        ("--config", "{root}/train.json", "--data", "{root}/data", "--out", "{root}/new"),
        ("--config", "{root}/train.json", "--data", "{root}/data", "--out", "{root}/run"),
    ),
    "search": (("--run", "{root}/run", "--stage", "8-16"),),
    "sample": (("--run", "{root}/cascade", "--out", "{root}/new", "--num-images", "4"),),
    "upscale": (
        ("{root}/photos", "--run", "{root}/run", "--out", "{root}/new"),
        ("{root}/photos", "--run", "{root}/models", "--out", "{root}/new"),
    ),
    "try": (("--run", "{root}/run", "--dry-run"), ("--run", "{root}/models", "--dry-run")),
    "evaluate": (
        ("--run", "{root}/run"),
        ("--run", "{root}/cascade", "--from-noise", "4"),
        ("--outputs", "a={root}/images/soft", "--references", "{root}/images/references", "--out", "{root}/new.json"),
        ("--run", "{root}/run", "--photos", "{root}/photos", "--labels", "{root}/labels.csv"),
    ),
    "ablate": (("--config", "{root}/train.json", "--data", "{root}/data", "--out", "{root}/new"),),
    "sweep": (
        (
            *("--config", "{root}/train.json", "--data", "{root}/data", "--out", "{root}/new"),
            *("--vary", "optimizer.learning-rate=1e-3,2e-3"),
        ),
    ),
    "report": (("{root}/run",), ("{root}/reported/demo",)),
    "study new": (
        (
            *("--references", "{root}/images/references", "--inputs", "{root}/images/inputs"),
            *("--model", "a={root}/images/soft", "--out", "{root}/new", *STUDY),
        ),
    ),
    "study serve": (("{root}/study", "--dry-run"), ("{root}/study", "--port", "{busy_port}")),
    "study results": (("{root}/study",),),
    "retrain": (("{root}/retrain.json",), ("{root}/retrain.json", "--dry-run")),
    "models": (
        ("{root}/models",),
        ("{root}/models", "--verify"),
        ("{root}/models", "--rollback"),
        ("{root}/models", "--promote", "v0002"),
    ),
    "export": (("{root}/run", "--out", "{root}/new"),),
    "import": (("{root}/weights.pth", "--out", "{root}/new"),),
    "status": (("{root}/run",), ("{root}/data",), ("{root}/reported/demo", "--as-json")),
    "verify": (("{root}/data",), ("{root}/data/8-16", "--contact-sheet", "{root}/new.png")),
    "demo": (("--out", "{root}/new"),),
    "jobs": (("--address", "http://127.0.0.1:{closed_port}"),),
    "logs": (("a-job", "--address", "http://127.0.0.1:{closed_port}"),),
    "stop": (("a-job", "--address", "http://127.0.0.1:{closed_port}"),),
    "doctor": (("--data", "{root}/data", "--out", "{root}/new"),),
    "schedule": (("--name", "x", "--cron", "0 3 * * *", "--", *SCHEDULED),),
}
"""Command -> calls that are right, but for a Ray that does not start."""


OF_RETRAIN = ("{root}/more", "{root}/work", "{root}/models")
"""What retrain.json names."""
WRITTEN: dict[str, tuple[str, ...]] = {
    "train": ("--out", "--placement.cache-folder"),
    "search": ("--run",),
    "sample": ("--out", "--grid"),
    "evaluate": ("--run", "--out", "--cache"),
    "report": ("RUNS",),
    "study serve": ("STUDY",),
    "study results": ("STUDIES", "--out"),
    "retrain": OF_RETRAIN,
    "models": ("REGISTRY",),
    "verify": ("--contact-sheet",),
    "try": (),
}
"""Command -> the options whose places it may write into, or these places themselves; of all others, `--out`."""


@dataclass(frozen=True)
class Call:
    """One call of a command."""

    command: str
    arguments: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The command line behind `sr3`."""
        return [*self.command.split(), *self.arguments]

    def filled(self, **values: object) -> "Call":
        """With values for what is in braces."""
        return Call(self.command, tuple(argument.format(**values) for argument in self.arguments))

    def reads(self, path: Path) -> bool:
        """Whether an argument names a file, or a folder that it is in."""
        places = [Path(argument.removeprefix("a=")) for argument in self.arguments if "/" in argument]
        return any(path.is_relative_to(place) for place in places)

    def writes_into(self, root: Path) -> list[str]:
        """The places that it may change."""
        positional = [argument for argument in self.arguments if not argument.startswith("--")][:1]
        options = dict(zip(self.arguments, self.arguments[1:], strict=False))
        places = []
        for name in WRITTEN.get(self.command, ("--out",)):
            places += [name.format(root=root)] if "/" in name else positional if name.isupper() else []
            places += [options[name]] if name in options else []
        return [place for place in places if place]

    def with_place(self, option: Option, place: str) -> "Call":
        """With another place for one of the options, or with that option."""
        before = {"NAME=PATH": "a=", "NAME=PATH …": "a=", "ADDRESS": "sqlite:///", "ADDRESS …": "sqlite:///"}
        text = before.get(option.values, "") + place
        arguments = list(self.arguments)
        if option.is_positional:
            return Call(self.command, (text, *arguments[1:]))
        if option.name in arguments:
            arguments[arguments.index(option.name) + 1] = text
            return Call(self.command, tuple(arguments))
        end = arguments.index("--") if "--" in arguments else len(arguments)
        return Call(self.command, (*arguments[:end], option.name, text, *arguments[end:]))


def calls() -> Iterator[Call]:
    """Every call; a command that the drive does not know yet is an error."""
    for command in COMMANDS:
        for arguments in CALLS[command]:
            yield Call(command, arguments)


def calls_with_places() -> Iterator[tuple[Call, Option]]:
    """Every option that takes a place, with a call that gives it one, or the command's first."""
    for command, those in CALLS.items():
        for option in place_options(command):
            giving = [arguments for arguments in those if option.name in arguments]
            yield Call(command, (giving or those)[0]), option


def place_options(command: str) -> list[Option]:
    """The options of a command that take a path."""
    module: Any = import_module(f"cluster.commands.{COMMANDS[command].module}")
    if command in ("train", "ablate", "sweep"):
        command_line = module.command_line_of(preset("small-16-64"))
    else:
        command_line = module.COMMAND_LINE
    return [option for option in options_of(command_line.options) if option.paths is not None]
