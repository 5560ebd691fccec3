"""What each `sr3` command does: read its options, connect to Ray, call the pipeline, say how it went."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.exits import FAILURE
from cluster.options import Common, Flat, parse, parse_train, printed, take_config
from cluster.session import ray_session
from cluster.training import train_and_tell, training_session
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.upscale import UpscaleConfig
from sr3core.config import from_dict, override
from sr3core.errors import ConfigError
from tune.search.settings import SearchConfig

if TYPE_CHECKING:
    from pipelines.prepare.preparation import PrepareSummary
    from pipelines.sampling.photo_upscaler import PhotoReport


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Turn a folder, archive or bucket of images into WebDataset shards for one or more stages."""

    config: Annotated[PrepareConfig, Flat]
    add_new: bool = False
    """Where the source has grown since: prepare only what is new, for training; held-out images stay what they are."""
    common: Annotated[Common, Flat] = field(default_factory=Common)


def prepare(arguments: list[str]) -> int:
    """`sr3 prepare --source DIR --out DIR --stages 16-128,64-256`."""
    content, arguments = take_config(arguments)
    default = PrepareOptions(config=from_dict(PrepareConfig, content)) if content is not None else None
    options = parse(PrepareOptions, "prepare", arguments, default)
    stages = tuple(spec.name for spec in options.config.stage_specs)  # "a,b" and "a b" are the same
    config = override(options.config, stages=stages)
    if options.common.print_config:
        print(printed(config))
        return 0
    from pipelines.prepare import preparation

    if options.common.dry_run:
        print(preparation.describe_plan(config, options.add_new))
        return 0

    with ray_session(options.common.address):
        summary = (preparation.add_new if options.add_new else preparation.prepare)(config)
    print(describe_preparation(summary))
    return 0


def describe_preparation(summary: "PrepareSummary") -> str:
    """A line a stage: samples by split, rejects by reason."""
    lines = []
    for stage, samples in summary.num_samples.items():
        rejects = ", ".join(f"{count} {reason}" for reason, count in summary.num_rejects[stage].items()) or "none"
        counts = ", ".join(f"{count} {split}" for split, count in samples.items())
        lines.append(f"{stage}: {counts}; rejected: {rejects}")
    return "\n".join([*lines, f"{summary.num_images} images in {summary.seconds:.1f} s, in {summary.out}"])


def train(arguments: list[str]) -> int:
    """`sr3 train PRESET --data DIR --out RUN`."""
    run_config, place, common = parse_train(arguments)
    if common.print_config:
        print(printed(run_config))
        return 0
    from pipelines.runs.run_folder import data_fingerprints

    fingerprints = data_fingerprints(place.data, run_config)
    if common.dry_run:
        for stage in run_config.stages:
            print(f"would train {stage.name} for {stage.num_steps} steps of {stage.batch_size} images in {place.out}")
        return 0
    with training_session(run_config, place, fingerprints, common.address) as run:
        return 0 if train_and_tell(run, place.only) else FAILURE


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search the inference schedule of a trained stage by FID on held-out images (section 2.4)."""

    run: str
    """Run folder that `sr3 train` wrote."""
    config: Annotated[SearchConfig, Flat]
    common: Annotated[Common, Flat] = field(default_factory=Common)


def search(arguments: list[str]) -> int:
    """`sr3 search --run RUN --stage 16-128`."""
    options = parse(SearchOptions, "search", arguments)
    if options.common.print_config:
        print(printed(options.config))
        return 0
    from pipelines.runs.run_folder import open_run
    from tune.search.schedule_search import search as run_search

    checkpoint = open_run(options.run).stage(options.config.stage).newest_checkpoint()
    if options.common.dry_run:
        print(f"would try {options.config.num_trials} schedules for {checkpoint.path}")
        return 0
    with ray_session(options.common.address):
        result = run_search(options.run, options.config)
    print(f"best: {result.report.best}, in {result.schedule_path}; all trials: {result.path}")
    return 0


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """Upscale photos of any size with a run's cascade, in tiles; what is done with these settings is not done again."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders, patterns in quotes ("scans/**/*.jpg"), s3://bucket/prefix."""
    run: str
    """Run folder that `sr3 train` wrote, or a registry of `sr3 retrain`, for its promoted model."""
    out: str
    """Folder or s3:// prefix for the outputs, named like the photos; OUT/.sr3 tells of what each was made."""
    config: Annotated[UpscaleConfig, Flat] = field(default_factory=UpscaleConfig)
    common: Annotated[Common, Flat] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("images: name at least one image file, or a folder of them")


def upscale(arguments: list[str]) -> int:
    """`sr3 upscale IMAGES… --run RUN --out DIR`."""
    options = parse(UpscaleOptions, "upscale", arguments)
    if options.common.print_config:
        print(printed(options.config))
        return 0
    from pipelines.registry.registry import find_model
    from pipelines.sampling.upscale import describe_plan, upscale_photos

    run = find_model(options.run)
    if options.common.dry_run:
        for line in describe_plan(run, options.images, options.out, options.config):
            print(line)
        return 0
    with ray_session(options.common.address):
        reports = upscale_photos(run, options.images, options.out, options.config)
    print(describe_upscaling(reports, options.out))
    return FAILURE if any(report.reason for report in reports) else 0


def describe_upscaling(reports: "list[PhotoReport]", out: str) -> str:
    """A line a failure, what was converted how often, and how many were made."""
    lines = [f"{report.source}: {report.reason}: {report.detail}" for report in reports if report.reason]
    notes = Counter(note for report in reports for note in report.notes)
    lines += [f"note: {note} ({count} photos)" for note, count in sorted(notes.items())]
    made, failed = sum(report.made for report in reports), sum(report.reason is not None for report in reports)
    there = len(reports) - made - failed
    before = f", {there} were there already" if there else ""
    return "\n".join([*lines, f"{made} of {len(reports)} images upscaled in {out}{before}, {failed} failed"])


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a run's report.html: one self-contained file, the paper's tables beside ours."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run folder; further ones fill the paper's tables of their tasks: an ablation, a run of another size."""
    study: str | None = None
    """Folder that `sr3 study results` wrote to; default: RUN/study, where it is there."""


def report(arguments: list[str]) -> int:
    """`sr3 report RUN…`."""
    options = parse(ReportOptions, "report", arguments)
    if not options.runs:
        raise ConfigError("name a run folder: `sr3 report RUN`")
    from pipelines.report.html_report import write_report

    run, *others = options.runs
    print(write_report(run, options.study, others))
    return 0


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Show how far a run or a preparation is; also while it is at work, on this machine or elsewhere."""

    path: Annotated[str, tyro.conf.Positional]
    """Run folder, or the folder of a preparation."""
    as_json: bool = False
    """Print JSON."""


def status(arguments: list[str]) -> int:
    """`sr3 status PATH`."""
    options = parse(StatusOptions, "status", arguments)
    from pipelines.report.status import describe, status_of

    found = status_of(options.path)
    print(json.dumps(found, indent=1) if options.as_json else describe(found))
    return 0


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Re-check prepared shards: everything planned is there, whole, at its offset, with its sum."""

    path: Annotated[str, tyro.conf.Positional]
    """Folder or s3:// prefix that `sr3 prepare` wrote, or one stage of it."""
    contact_sheet: str | None = None
    """Also draw random records of a stage as this PNG, to look at."""
    num_records: int = 24
    """Records on the contact sheet."""


def verify(arguments: list[str]) -> int:
    """`sr3 verify DIR`, `sr3 verify DIR/64-256 --contact-sheet sheet.png`."""
    options = parse(VerifyOptions, "verify", arguments)
    from pipelines.prepare.contact_sheet import contact_sheet
    from pipelines.prepare.verify import describe
    from pipelines.prepare.verify import verify as run_verify

    problems = run_verify(options.path)
    print(describe(options.path, problems))
    if options.contact_sheet is not None:
        contact_sheet(options.path, options.contact_sheet, options.num_records)
        print(options.contact_sheet)
    return FAILURE if problems else 0


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Run the whole chain on bundled photos in minutes: prepare, train, search, upscale, evaluate, report."""

    out: str = "runs/demo"
    """Run folder; what it already holds is used again."""
    common: Annotated[Common, Flat] = field(default_factory=Common)


def demo(arguments: list[str]) -> int:
    """`sr3 demo`."""
    options = parse(DemoOptions, "demo", arguments)
    if options.common.dry_run:
        print(f"would run the demo in {options.out}")
        return 0
    from cluster.demo import run_demo

    with ray_session(options.common.address):
        report_path = run_demo(Path(options.out))
    print(f"\nOpen the report: {report_path}")
    return 0
