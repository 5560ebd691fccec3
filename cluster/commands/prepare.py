"""`sr3 prepare`: images become WebDataset shards."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat, OnRay, Writing
from cluster.options.reading import CommandLine, print_configuration
from cluster.session import ray_session
from pipelines.images.rejects import check_retriable
from pipelines.settings.prepare import PrepareConfig
from sr3core.config import override
from sr3core.hyperparameters import require

if TYPE_CHECKING:
    from pipelines.prepare.preparation import PrepareSummary


@dataclass(frozen=True, kw_only=True)
class Options(Configured, Writing, OnRay):
    """Turn a folder, archive or bucket of images into WebDataset shards for one or more stages."""

    config: Annotated[PrepareConfig, Flat]
    add_new: bool = False
    """Prepare only images that were added to the source since, for training; held-out images stay held out."""
    retry_rejects: tuple[str, ...] = ()
    """Write finished shards anew that rejected images for these reasons, as after a decoder or a file was mended."""


COMMAND_LINE = CommandLine(
    name="prepare",
    options=Options,
    essential=(
        *("--source", "--out", "--stages", "--validation-fraction", "--test-fraction", "--layout"),
        *("--align-faces", "--add-new", "--num-workers", "--dry-run", "--config", "--address"),
    ),
    examples=(
        "sr3 prepare --source photos/ --out data --stages 16-64",
        "sr3 prepare --source weather.npy --coarsen 4 --stages 16-64 --out data",
        "sr3 prepare --source s3://bucket/faces.zip --out s3://bucket/data --stages 16-128,64-256 --test-fraction 0.02",
    ),
)


def read(arguments: list[str]) -> Options:
    """Read the options; `--stages a,b` and `--stages a b` are the same."""
    options = COMMAND_LINE.read(arguments)
    check_retriable(options.retry_rejects)
    stages = tuple(spec.name for spec in options.config.stage_specs)
    return dataclasses.replace(options, config=override(options.config, stages=stages))


def run(options: Options) -> int:
    """`sr3 prepare --source DIR --out DIR --stages 16-128,64-256`."""
    if options.print_config:
        print_configuration(options)
        return DONE
    if options.config.has_fields:
        return _run_fields(options)
    with loading():
        from pipelines.prepare import preparation
        from pipelines.report.next_commands import after_preparation
        from pipelines.storage.leases.folder_lease import working_in

    if options.dry_run:
        print(preparation.describe_plan(options.config, options.add_new, options.retry_rejects))
        return DONE
    with working_in(options.config.out, "preparing", wait=options.wait):
        begun = preparation.begin(options.config, options.add_new, options.retry_rejects)
        with ray_session(options.address):
            summary = preparation.complete(begun)
    print(describe_preparation(summary))
    print(after_preparation(summary.num_samples, summary.out))
    return DONE


def _run_fields(options: Options) -> int:
    """The same for a store of arrays."""
    for name, given in (("add_new", options.add_new), ("retry_rejects", options.retry_rejects)):
        require(not given, f"{name}: it is for images; prepare a changed store into another --out")
    with loading():
        from pipelines.prepare.fields.preparation import describe_field_plan, describe_fields, prepare_fields
        from pipelines.report.next_commands import after_preparation
        from pipelines.storage.leases.folder_lease import working_in

    if options.dry_run:
        print(describe_field_plan(options.config))
        return DONE
    with working_in(options.config.out, "preparing", wait=options.wait), ray_session(options.address):
        summary = prepare_fields(options.config)
    print(describe_fields(summary))
    print(after_preparation({summary.stage: summary.num_samples}, summary.out))
    return DONE


def describe_preparation(summary: "PrepareSummary") -> str:
    """One line per stage: samples by split, rejects by reason; then what of the source was ignored."""
    lines = []
    for stage, samples in summary.num_samples.items():
        rejects = ", ".join(f"{count} {reason}" for reason, count in summary.num_rejects[stage].items()) or "none"
        counts = ", ".join(f"{count} {split}" for split, count in samples.items())
        lines.append(f"{stage}: {counts}; rejected: {rejects}")
    return "\n".join(
        [*lines, *summary.remarks, f"{summary.num_images} images in {summary.seconds:.1f} s, in {summary.out}"]
    )
