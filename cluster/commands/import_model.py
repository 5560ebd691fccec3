"""`sr3 import`: the weights of another program as a model folder."""

from dataclasses import dataclass, field
from shlex import quote
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import DryRun, Flat
from cluster.options.reading import CommandLine
from pipelines.settings.import_model import ImportConfig
from pipelines.settings.locations import Location


@dataclass(frozen=True, kw_only=True)
class Options(DryRun):
    """Take over weights that were trained with another program, as a model folder: those of
    Image-Super-Resolution-via-Iterative-Refinement (16 -> 128 and 64 -> 512 faces) and of guided-diffusion's 64 -> 256
    upsampler."""

    file: Annotated[Location, tyro.conf.Positional]
    """The file of weights: I640000_E37_gen.pth, I830000_E32_gen.pth or 64_256_upsampler.pt. Nothing in it is executed.
    """
    out: Location
    """New folder or s3:// prefix for the model."""
    config: Annotated[ImportConfig, Flat] = field(default_factory=ImportConfig)


COMMAND_LINE = CommandLine(
    name="import",
    options=Options,
    essential=("FILE", "--out", "--image-class", "--dry-run"),
    examples=(
        "sr3 import I640000_E37_gen.pth --out models/faces-16-128",
        "sr3 import 64_256_upsampler.pt --out models/natural-64-256",
    ),
)


def read(arguments: list[str]) -> Options:
    """Read the options."""
    return COMMAND_LINE.read(arguments)


def run(options: Options) -> int:
    """`sr3 import FILE --out MODEL`."""
    with loading():
        from pipelines.registry.importing.imported_model import import_model, read_file
        from pipelines.registry.model_folder import check_new
        from pipelines.storage.writable import refuse_unwritable_folder

    check_new(options.out)
    refuse_unwritable_folder(options.out)
    file = read_file(options.file)
    stage, schedule = file.published.stage.name, file.published.schedule
    print(f"{options.file} holds the {stage} network of {file.published.source}.")
    if options.dry_run:
        print(f"would write it to {options.out}")
        return DONE
    sizes = import_model(file, options.out, options.config)
    print(f"The model is in {options.out}, {sum(sizes.values()) / 1e6:.1f} MB.")
    print(f"It samples as its authors do, in {schedule.num_steps} steps; --schedule 100 respaces them.")
    print(f"Next: `sr3 upscale PHOTOS --run {quote(options.out)} --out large --schedule 100`")
    return DONE
