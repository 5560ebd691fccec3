"""What `sr3 train` and `sr3 ablate` share: from a configuration to trained stages, and one line about each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster.options.training import TrainOptions
from cluster.session import ray_session
from pipelines.settings.train import RunConfig

if TYPE_CHECKING:
    from pipelines.runs.run_folder import Run
    from pipelines.training.spending import Prices


@contextmanager
def training_session(config: RunConfig, options: TrainOptions, fingerprints: dict[str, str]) -> "Iterator[Run]":
    """Ray, and the run in `--out`.

    A run of another configuration is refused before Ray starts. With `--fresh` it is deleted, but only after it is
    certain that the new one can train here.

    Raises:
        ConfigError: another run is in `--out`, or with `--fresh` this one cannot train here.
        StorageError: another process trains the run in `--out`, or with `--fresh` does anything there.
    """
    from pipelines.runs.run_folder import create_run
    from pipelines.storage.leases.folder_lease import refuse_if_anything_runs, working_in
    from pipelines.training.parallel_stages import check_stages

    def open_or_start() -> "Run":
        return create_run(options.out, config, options.prepared_data, fingerprints, options.fresh)

    with working_in(options.out, "training", wait=options.wait):
        run = None if options.fresh else open_or_start()
        with ray_session(options.address):
            if run is None:
                check_stages([stage for stage in config.stages if not options.only or stage.name in options.only])
                refuse_if_anything_runs(options.out)
                run = open_or_start()
            yield run


def train_and_tell(run: "Run", only: tuple[str, ...], prices: "Prices | None" = None) -> bool:
    """Train these stages, or all of them, and print how each ended. Returns whether all are done."""
    from pipelines.training.parallel_stages import train_run
    from pipelines.training.spending import Prices

    results = train_run(run, only, prices or Prices())
    for result in results:
        print(f"{result.stage}: step {result.step}" + (f", FAILED: {result.error}" if result.error else ", done"))
    return not any(result.error for result in results)


def describe_training(run: "Run") -> "Iterator[str]":
    """What the held-out losses say, and the next command."""
    from pipelines.report.next_commands import after_training
    from pipelines.report.verdict import held_out_losses, training_verdict

    yield from training_verdict(held_out_losses(run))
    yield from after_training(run)
