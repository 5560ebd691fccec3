"""`sr3 retrain`: train on what is new, and promote the model if it is better."""

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import OnRay, Printable, Writing
from cluster.options.fields import home_expanded
from cluster.options.reading import CommandLine, as_json, naming_file, read_config
from cluster.session import ray_session
from pipelines.settings.locations import Location
from sr3core.config import from_dict
from tune.retraining.settings import RetrainConfig

if TYPE_CHECKING:
    from tune.retraining.retrain import Outcome


@dataclass(frozen=True, kw_only=True)
class Options(Printable, Writing, OnRay):
    """Train on new images of a source, and promote the new model if it is better than the current one."""

    config: Annotated[Location, tyro.conf.Positional]
    """JSON file: source, shards, what is trained and how it is judged; docs/how-to/retraining.md shows one."""
    always: bool = False
    """Train even if the source holds nothing new."""
    fresh: bool = False
    """Abandon an unfinished retraining, and start another."""


COMMAND_LINE = CommandLine(
    name="retrain",
    options=Options,
    essential=("CONFIG", "--always", "--fresh", "--dry-run", "--print-config", "--address"),
    examples=(
        "sr3 retrain /shared/retrain.json",
        'sr3 schedule --name nightly --cron "0 3 * * *" -- retrain /shared/retrain.json',
    ),
)


def _read(path: str) -> RetrainConfig:
    content = read_config(path)
    with naming_file(path):
        return from_dict(RetrainConfig, content)


def run(options: Options) -> int:
    """`sr3 retrain CONFIG.json`: the same command again resumes."""
    config = home_expanded(_read(options.config))
    if options.print_config:
        print(as_json(config))
        return DONE
    with loading():
        from pipelines.registry.registry import Registry
        from pipelines.storage.leases.lease import refuse_if_held
        from pipelines.storage.uris import absolute

    if options.dry_run:
        with loading():
            from tune.retraining.rehearsal import rehearse

        refuse_if_held(Registry(absolute(config.registry)).lease)
        for line in rehearse(config, options.fresh):
            print(line)
        return DONE
    with loading():
        from tune.retraining.lease import retraining_lease
        from tune.retraining.rehearsal import check

    with retraining_lease(config, options.wait) as lease:
        check(config, options.fresh)
        with loading():
            from tune.retraining.retrain import retrain as run_retrain

        with ray_session(options.address):
            outcome = run_retrain(config, lease, options.always, options.fresh)
    for line in describe_retraining(outcome, config.registry):
        print(line)
    return DONE


def describe_retraining(outcome: "Outcome", registry: str) -> Iterator[str]:
    """What became of the new model, and the next command."""
    if outcome.version is None:
        yield outcome.why
        return
    yield f"{outcome.version} is {'promoted' if outcome.promoted else 'NOT promoted'}: {outcome.why}"
    yield f"next: sr3 models {quote(registry)}"
