"""`sr3 train`: the stages of a preset, in parallel."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.exits import DONE, FAILURE
from cluster.loading import loading
from cluster.options.reading import CommandLine, as_json
from cluster.options.training import TrainOptions, command_line, take_preset
from cluster.training import describe_training, train_and_tell, training_session
from pipelines.settings.locations import NamedLocation
from pipelines.settings.train import RunConfig
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.runs.parent_weights import Parent, ParentPlace

ESSENTIAL = ("--from",)
EXAMPLE = "sr3 train small-16-64 --data data --out runs/mine"


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Train the stages of a preset in parallel."""

    start_from: tyro.conf.UseAppendAction[Annotated[tuple[NamedLocation, ...], tyro.conf.arg(name="from")]] = ()
    """Fine-tune: start from the weights of a run, a registry, RUN/STAGE, a checkpoint's folder or a safetensors file;
    STAGE=PATH for one stage, PATH alone for all others."""
    gpu_memory: float = 80.0
    """Memory of a GPU, GB, that --dry-run compares a training step with."""
    gpu_dollars: float = 0.0
    """Price of a GPU for an hour, with its share of the node: a node of 8 at 32 dollars has 4 each."""
    cpu_dollars: float = 0.0
    """Price of a CPU for an hour, on nodes without GPUs."""
    max_dollars: float | None = None
    """End the training, with a checkpoint and exit status 3, when the run has cost as much in node hours."""
    partial: bool = False
    """Accept weights of another network by --from, and take over what fits."""


def command_line_of(run: RunConfig) -> CommandLine[Options]:
    """The command line of a preset."""
    return command_line("train", run, Options, *ESSENTIAL, example=EXAMPLE.replace("small-16-64", run.name))


def read(arguments: list[str]) -> Options:
    """Read `PRESET [OPTIONS]`: the options are the preset's own, `--optimizer.learning-rate` for a preset of one
    stage, `--64-256.optimizer.learning-rate` for one of several.

    Raises:
        ConfigError: no or an unknown preset, an invalid --config, an unknown stage.
    """
    preset, rest = take_preset("train", arguments, EXAMPLE)
    options = command_line_of(preset).read(rest)
    options.check_only()
    return options


def run(options: Options) -> int:
    """`sr3 train PRESET --data DIR --out RUN`."""
    config = options.run_config
    if options.print_config:
        print(as_json(config))
        return DONE
    with loading():
        from pipelines.runs.field_samples import fitted_to_data
        from pipelines.runs.run_folder import data_fingerprints, open_run
        from pipelines.storage.leases.folder_lease import refuse_if_busy
        from pipelines.training.fine_tuning import start_stages
        from pipelines.training.resources import describe_memory
        from pipelines.training.spending import Prices

    prices = Prices(gpu_dollars=options.gpu_dollars, cpu_dollars=options.cpu_dollars, max_dollars=options.max_dollars)
    config, parents = find_start(options, fitted_to_data(config, options.prepared_data))
    fingerprints = data_fingerprints(options.prepared_data, config)
    if options.dry_run:
        refuse_if_busy(options.out, "training")
        for stage in config.stages:
            print(f"would train {stage.name} for {stage.num_steps} steps of {stage.batch_size} images in {options.out}")
            if stage.name in parents:
                print(f"  from {parents[stage.name].describe()}")
            if stage.placement.use_gpu:
                print(f"  {describe_memory(stage, options.gpu_memory)}")
        return DONE
    with training_session(config, options, fingerprints) as opened:
        for line in start_stages(opened, parents, options.partial):
            print(line)
        if not train_and_tell(opened, options.only, prices):
            return FAILURE
        for line in describe_training(open_run(options.out)):
            print(line)
    return DONE


def find_start(options: Options, config: RunConfig) -> "tuple[RunConfig, dict[str, Parent]]":
    """The run with the weights that its stages start from, and these weights; nothing is read for stages begun from
    the same places before, which resume wherever their parents are now.

    Raises:
        ConfigError: --partial without --from, or a stage that does not exist, here or there.
        DataError, CheckpointError: a place holds no weights, or damaged ones.
    """
    if not options.start_from:
        if options.partial:
            raise ConfigError("partial: it needs --from, whose weights it takes over in part")
        return config, {}
    from pipelines.runs.parent_weights import find_parents, with_initial_weights
    from pipelines.training.fine_tuning import as_started, check_fit, starts_of

    places = [_place(text, config) for text in options.start_from]
    given = {place.stage: place.given for place in places}
    begun = {} if options.fresh else starts_of(options.out)
    begun = {name: start for name, start in begun.items() if start["given"] == given.get(name, given.get(None))}
    if any(stage.name not in begun for stage in config.stages):
        places = [dataclasses.replace(place, location=_located(place.given)) for place in places]
    parents = find_parents(config, places, begun)
    check_fit(config, parents, options.partial)
    return as_started(with_initial_weights(config, parents), begun), parents


def _place(text: str, config: RunConfig) -> "ParentPlace":
    """Read `PATH` or `STAGE=PATH`."""
    from pipelines.runs.hub_models import is_read_only
    from pipelines.runs.parent_weights import ParentPlace
    from pipelines.storage.uris import absolute

    names = [stage.name for stage in config.stages]
    name, sign, place = text.partition("=")
    if not sign or "/" in name:  # a path may hold an equals sign
        name, place = "", text
    elif name not in names:
        raise ConfigError(f"from: {config.name} has no stage {name!r}, {did_you_mean(name, names)}")
    given = place if is_read_only(place) else absolute(place)
    return ParentPlace(given, given, name or None)


def _located(given: str) -> str:
    """The place itself: of a registry, its promoted model."""
    from pipelines.registry.registry import find_model
    from pipelines.runs.hub_models import is_read_only
    from pipelines.storage.uris import is_file

    return given if is_read_only(given) or is_file(given) else find_model(given)
