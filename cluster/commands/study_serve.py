"""`sr3 study serve`: the web server of a human study."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.options.declared import DryRun, Flat
from cluster.options.reading import CommandLine
from pipelines.settings.locations import Location
from pipelines.study.config import ServeConfig
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options(DryRun):
    """Serve a study to participants. Ctrl-C stops the server; the same command resumes it."""

    study: Annotated[Location, tyro.conf.Positional]
    """Folder that `sr3 study new` wrote."""
    config: Annotated[ServeConfig, Flat] = field(default_factory=ServeConfig)


COMMAND_LINE = CommandLine(
    name="study serve",
    options=Options,
    essential=("STUDY", "--host", "--port", "--database", "--root-path", "--dry-run"),
    examples=("sr3 study serve studies/faces", "sr3 study serve studies/faces --host 0.0.0.0 --port 80"),
)


def run(options: Options) -> int:
    """`sr3 study serve STUDY`."""
    from pipelines.study.study_folder import open_study

    opened = open_study(options.study)
    if options.dry_run:
        opened.verify()
        if options.config.database is not None:
            from pipelines.study.database import check_address

            check_address(options.config.database)
        print(f"would serve {opened.path} on {options.config.host}:{options.config.port}")
        return DONE
    try:
        from pipelines.study.server import serve as run_server
    except ImportError as error:
        raise ConfigError(
            f"study: the web server is not installed ({error.name} is missing); run `pip install sr3-on-ray[study]`"
        ) from error
    run_server(opened, options.config, on_ready=lambda text: print(text, flush=True))
    return DONE
