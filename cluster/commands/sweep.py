"""`sr3 sweep`: trainings of a preset with different settings, of which the better ones continue."""

from dataclasses import dataclass, field
from shlex import quote
from typing import Annotated

import tyro

from cluster.exits import DONE, FAILURE
from cluster.loading import loading
from cluster.options.declared import Flat
from cluster.options.reading import CommandLine, as_json
from cluster.options.training import TrainOptions, command_line, take_preset
from cluster.session import ray_session
from pipelines.settings.train import RunConfig
from sr3core.config import override
from sr3core.errors import ConfigError
from tune.sweeps.settings import SweepConfig

EXAMPLE = "sr3 sweep small-16-64 --data data --out sweep --vary batch-size=16,32"


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Train a preset's stage with different settings; by held-out loss, the better ones continue (ASHA)."""

    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, SETTING=VALUE,VALUE; several --vary train every combination. Settings are named as the
    options of `sr3 train` are: optimizer.learning-rate, batch-size, model.unet.dropout."""
    sweep: Annotated[SweepConfig, Flat] = field(default_factory=SweepConfig)

    @property
    def base(self) -> RunConfig:
        """The stage whose settings are varied, as a run of its own.

        Raises:
            ConfigError: several stages are left.
        """
        config = self.run_config
        stages = tuple(stage for stage in config.stages if not self.only or stage.name in self.only)
        if len(stages) != 1:
            named = ", ".join(stage.name for stage in stages)
            raise ConfigError(f"only: a sweep trains one stage, and {config.name} has {named}; choose one by --only")
        return override(config, stages=stages)


def command_line_of(run: RunConfig) -> CommandLine[Options]:
    """The command line of a preset."""
    example = EXAMPLE.replace("small-16-64", run.name)
    return command_line("sweep", run, Options, "--vary", "--num-rungs", "--rung-factor", example=example)


def read(arguments: list[str]) -> Options:
    """Read `PRESET [OPTIONS]`.

    Raises:
        ConfigError: several stages are left, nothing is varied, or an option is wrong.
    """
    base, rest = take_preset("sweep", arguments, EXAMPLE)
    options = command_line_of(base).read(rest)
    options.check_only()
    (stage,) = options.base.stages
    options.sweep.rungs(stage.num_steps)
    if options.fresh:
        raise ConfigError("fresh: a sweep deletes no trainings; choose another --out")
    return options


def run(options: Options) -> int:
    """`sr3 sweep PRESET --data DIR --out DIR --vary SETTING=VALUE,VALUE`."""
    config = options.base
    if options.print_config:
        print(as_json(config))
        return DONE
    with loading():
        from pipelines.runs.run_folder import data_fingerprints
        from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in
        from pipelines.storage.uris import is_remote
        from pipelines.training.parallel_stages import check_stages
        from tune.sweeps.points import parse_axes, points_of

    axes = parse_axes(options.vary)
    points = points_of(config.stages[0], axes)
    rungs = options.sweep.rungs(config.stages[0].num_steps)
    if is_remote(options.out):
        raise ConfigError(f"out: {options.out} is in a bucket; a sweep needs a folder that all nodes share")
    fingerprints = data_fingerprints(options.prepared_data, config)
    if options.dry_run:
        refuse_if_busy(options.out, "training")
        for point in points:
            print(f"would train {point.name}, compared at {', '.join(map(str, rungs))} steps")
        return DONE
    with working_in(options.out, "training", wait=options.wait), ray_session(options.address):
        with loading():
            from tune.sweeps.training_results import format_table, write_report
            from tune.sweeps.trainings import sweep

        check_stages([point.config for point in points])
        records = sweep(options.out, points, options.prepared_data, fingerprints, options.sweep)
        write_report(records, tuple(axes), config.name)
    print(format_table(records, tuple(axes), config.name), end="")
    best = records.ranked[0]
    if best.status == "failed":
        return FAILURE
    print(f"report: {quote(options.out)}/table.md")
    print(f"next: sr3 search --run {quote(f'{options.out}/{best.name}')}    (of the best)")
    return FAILURE if any(one.status == "failed" for one in records.ended) else DONE
