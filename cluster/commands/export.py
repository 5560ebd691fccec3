"""`sr3 export`: a trained run as a model folder, for others to use."""

from dataclasses import dataclass, field
from shlex import quote
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import DryRun, Flat
from cluster.options.reading import CommandLine
from pipelines.settings.export import ExportConfig
from pipelines.settings.locations import Location


@dataclass(frozen=True, kw_only=True)
class Options(DryRun):
    """Write a trained run as a model folder: weights, searched schedules and a model card, without what only training
    needs."""

    run: Annotated[Location, tyro.conf.Positional]
    """Run folder that `sr3 train` wrote, or a registry, for its promoted model."""
    out: Location
    """New folder or s3:// prefix for the model."""
    upload: str | None = None
    """Also upload the folder to the Hugging Face hub as ORG/NAME; a new repository is public. Needs a token: `hf auth
    login`, or HF_TOKEN."""
    config: Annotated[ExportConfig, Flat] = field(default_factory=ExportConfig)


COMMAND_LINE = CommandLine(
    name="export",
    options=Options,
    essential=(
        *("RUN", "--out", "--weights", "--title", "--license", "--credits", "--limits", "--evaluations"),
        *("--upload", "--dry-run"),
    ),
    examples=(
        "sr3 export runs/faces --out models/faces",
        'sr3 export runs/faces --out models/faces --license cc-by-4.0 --credits "FFHQ, 70,000 faces from Flickr"',
        "sr3 export runs/faces --out models/faces --license cc-by-4.0 --upload ORG/faces",
    ),
)


def read(arguments: list[str]) -> Options:
    """Read the options."""
    return COMMAND_LINE.read(arguments)


def run(options: Options) -> int:
    """`sr3 export RUN --out FOLDER`."""
    with loading():
        from pipelines.registry.hub_upload import check_upload, upload_model
        from pipelines.registry.model_folder import check_export, export_model
        from pipelines.registry.registry import find_model
        from pipelines.runs.run_folder import open_run

    if options.upload:
        check_upload(options.out, options.upload)
    model = open_run(find_model(options.run))
    if options.dry_run:
        stages = check_export(model, options.out)
        print(f"would export {', '.join(stage.name for stage in stages)} to {options.out}")
        return DONE
    sizes = export_model(model, options.out, options.config)
    for path, num_bytes in sizes.items():
        print(f"{path}: {num_bytes:,} bytes")
    print(f"The model is in {options.out}, {sum(sizes.values()) / 1e6:.1f} MB; read its README.md before you share it.")
    place = options.out
    if options.upload:
        place = upload_model(options.out, options.upload)
        print(f"It is on the hub: {place}")
    print(f"Next: `sr3 upscale PHOTOS --run {quote(place)} --out large`")
    return DONE
