"""`sr3 study new`: a human study, frozen before anybody answers."""

from dataclasses import dataclass
from shlex import quote
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat
from cluster.options.reading import CommandLine, print_configuration
from pipelines.settings.locations import Location, NamedLocation
from pipelines.study.config import StudyConfig
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options(Configured):
    """Freeze a two-alternative forced-choice study of section 4.2.2: originals against each model's outputs."""

    references: Location
    """Folder of the originals."""
    model: tyro.conf.UseAppendAction[tuple[NamedLocation, ...]]
    """NAME=PATH: a model's name and the folder of its outputs, of the originals' sizes and file names; repeat it for
    each model."""
    out: Location
    """Folder for the study; it must not exist yet."""
    inputs: Location | None = None
    """Folder of the low-resolution inputs, which Task 1 shows."""
    config: Annotated[StudyConfig, Flat]


COMMAND_LINE = CommandLine(
    name="study new",
    options=Options,
    essential=(
        *("--references", "--model", "--out", "--task", "--inputs", "--num-images", "--subjects-per-model"),
        *("--trials-per-subject", "--viewing-seconds", "--contact", "--dry-run", "--config", "--print-config"),
    ),
    examples=(
        "sr3 study new --task 1 --references originals --inputs small --model SR3=outputs/sr3"
        " --model regression=outputs/regression --out studies/faces",
    ),
)


def read(arguments: list[str]) -> Options:
    """Read the options."""
    return COMMAND_LINE.read(_separate_models(arguments))


def run(options: Options) -> int:
    """`sr3 study new --references DIR --inputs DIR --model NAME=DIR --task 1 --out STUDY`."""
    if options.print_config:
        print_configuration(options)
        return DONE
    with loading():
        from pipelines.study.freeze import Folders, draft_study, free_path, new_study, read_pictures

    models = _models(options.model)
    folders = Folders(references=options.references, models=models, inputs=options.inputs)
    free_path(options.out)
    draft = draft_study(folders, options.config)
    for line in draft.ignored.remarks():
        print(line)
    if options.dry_run:
        read_pictures(draft)
        print(f"would create in {options.out}: {draft.describe()}")
        return DONE
    made = new_study(folders, options.config, options.out)
    print(
        f"{made.path}: {len(made.plan.slots)} places, {len(made.plan.checksums)} images, fingerprint {made.fingerprint}"
    )
    print(f"completion code {made.config.completion_code}; next: sr3 study serve {quote(str(made.path))}")
    return DONE


def _separate_models(arguments: list[str]) -> list[str]:
    """`--model A=a B=b` as `--model A=a --model B=b`: people write both, and neither may lose a model."""
    separated, inside = [], False
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument == "--model"
        elif inside and separated[-1] != "--model":
            separated.append("--model")
        separated.append(argument)
    return separated


def _models(texts: tuple[str, ...]) -> dict[str, str]:
    models: dict[str, str] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"model: {text!r} is not NAME=DIR, such as SR3=outputs/sr3")
        if name in models or name in ("reference", "input"):
            raise ConfigError(f"model: the name {name!r} is there twice, or is one of reference, input; take another")
        models[name] = folder
    return models
