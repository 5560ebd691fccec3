"""`sr3 study new`, `serve` and `results`: the human study."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.options import parse, printed, take_config
from pipelines.study.config import ServeConfig, StudyConfig
from sr3core.config import did_you_mean, from_dict
from sr3core.errors import ConfigError

Flat = tyro.conf.arg(name="")


def study(arguments: list[str]) -> int:
    """`sr3 study new|serve|results`."""
    verbs: dict[str, Callable[[list[str]], int]] = {"new": new, "serve": serve, "results": results}
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return 0
    if not arguments or arguments[0] not in verbs:
        given = repr(arguments[0]) if arguments else "nothing"
        raise ConfigError(
            f"{given} is not new, serve or results; {did_you_mean(arguments[0] if arguments else '', verbs)}"
        )
    return verbs[arguments[0]](arguments[1:])


HELP = """usage: sr3 study new|serve|results [OPTIONS]

The human study of section 4.2.2: people say which of two images is the original.

  new      freeze a study of folders of images: who sees what, attention checks, exclusions
  serve    put it on the web, on this machine alone unless --host says otherwise
  results  fool rates with two-way bootstrap intervals, tests, figures

`sr3 study new --help` tells the options; docs/study.md tells how to run one with people."""


@dataclass(frozen=True, kw_only=True)
class NewOptions:
    """Freeze a two-alternative forced-choice study: originals against each model's outputs."""

    references: str
    """Folder of the originals."""
    model: tyro.conf.UseAppendAction[tuple[str, ...]]
    """NAME=DIR: a folder of outputs of the originals' sizes, paired by file name; once a model."""
    out: str
    """Folder for the study; it must not be there yet."""
    inputs: str | None = None
    """Folder of the low-resolution inputs, which Task 1 shows."""
    config: Annotated[StudyConfig, Flat]
    dry_run: bool = False
    """Read and check every image and say what would be made, without making it."""
    print_config: bool = False
    """Print the complete configuration as JSON and stop; --config reads it back."""


def new(arguments: list[str]) -> int:
    """`sr3 study new --references DIR --inputs DIR --model NAME=DIR --task 1 --out STUDY`."""
    content, arguments = take_config(_separate_models(arguments))
    default = None
    if content is not None:
        default = NewOptions(
            references=tyro.MISSING, model=(), out=tyro.MISSING, config=from_dict(StudyConfig, content)
        )
    options = parse(NewOptions, "study new", arguments, default)
    if options.print_config:
        print(printed(options.config))
        return 0
    from pipelines.study.freeze import Folders, draft_study, new_study, read_pictures

    models = _models(options.model)
    folders = Folders(references=options.references, models=models, inputs=options.inputs)
    if options.dry_run:
        draft = draft_study(folders, options.config)
        read_pictures(draft)
        print(f"would make in {options.out}: {draft.describe()}")
        return 0
    made = new_study(folders, options.config, options.out)
    print(
        f"{made.path}: {len(made.plan.slots)} places, {len(made.plan.checksums)} images, fingerprint {made.fingerprint}"
    )
    print(f"completion code {made.config.completion_code}; next: sr3 study serve {made.path}")
    return 0


def _separate_models(arguments: list[str]) -> list[str]:
    """`--model A=a B=b` as `--model A=a --model B=b`: both are natural, and neither may lose a model."""
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


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a study to participants; Ctrl-C ends it, the same command goes on where it was."""

    study: Annotated[str, tyro.conf.Positional]
    """Folder of `sr3 study new`."""
    config: Annotated[ServeConfig, Flat] = field(default_factory=ServeConfig)
    dry_run: bool = False
    """Check the study and its images, and stop."""


def serve(arguments: list[str]) -> int:
    """`sr3 study serve STUDY`."""
    options = parse(ServeOptions, "study serve", arguments)
    from pipelines.study.study_folder import open_study

    opened = open_study(options.study)
    if options.dry_run:
        opened.verify()
        print(f"would serve {opened.path} on {options.config.host}:{options.config.port}")
        return 0
    try:
        from pipelines.study.server import serve as run_server
    except ImportError as error:
        raise ConfigError(
            f"study: the web server is not installed ({error.name}); pip install sr3-on-ray[study]"
        ) from error
    run_server(opened, options.config, on_ready=lambda text: print(text, flush=True))
    return 0


@dataclass(frozen=True, kw_only=True)
class ResultsOptions:
    """Compute fool rates, intervals and tests of a study, or of one of each task side by side."""

    studies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of `sr3 study new`, at most one of each task."""
    database: tuple[str, ...] = ()
    """Database address of each study, in order, where answers are not in STUDY/study.sqlite."""
    out: str | None = None
    """Folder for results.json, trials.csv, trials.json, figures/; default: the first study's."""
    num_replicates: int = 10_000
    """Replicates of the bootstrap."""

    def __post_init__(self) -> None:
        if not self.studies:
            raise ConfigError("studies: name at least one folder of `sr3 study new`")


def results(arguments: list[str]) -> int:
    """`sr3 study results STUDY…`."""
    options = parse(ResultsOptions, "study results", arguments)
    from pipelines.study.results import tabulate, write_results

    found = write_results(options.studies, options.database, options.out, options.num_replicates)
    print(tabulate(found))
    print(options.out or options.studies[0])
    return 0
