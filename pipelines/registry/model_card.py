"""The card of an exported model: a README.md filled from the run, as model hubs show it."""

import textwrap
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import jinja2

from pipelines.runs.run_folder import Run
from pipelines.runs.stage_run import StageRun
from pipelines.settings.export import ExportConfig
from sr3core.hyperparameters import ModelConfig, ResidualOf
from sr3core.sizes import describe, num_pixels, rows_by_columns

_NUMBERS = {
    "psnr": ("PSNR, dB", "{:.2f}", 1.0),
    "ssim": ("SSIM", "{:.3f}", 1.0),
    "consistency": ("consistency, MSE x 1e-5", "{:.2f}", 1.0),
    "kid": ("KID x 1000", "{:.1f}", 1000.0),
    "distance": ("Fréchet distance", "{:.1f}", 1.0),
}
"""Metric -> its heading, how its numbers are written, and their factor."""
_DRAWN: dict[ResidualOf, str] = {
    "none": "images",
    "upsampled": "what bicubic upsampling leaves",
    "regression": "what its regression, a network of the same kind, leaves",
}
_NAMES = {"sr3": "this model", "bicubic": "bicubic"}


def render_card(
    run: Run, stages: Sequence[StageRun], config: ExportConfig, evaluations: Sequence[Mapping[str, Any]]
) -> str:
    """The text of README.md.

    Args:
        run: where the model comes from.
        stages: those that the model holds.
        config: title, licence, credits.
        evaluations: contents of files that `sr3 evaluate` wrote.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), undefined=jinja2.StrictUndefined
    )
    environment.trim_blocks = environment.lstrip_blocks = environment.keep_trailing_newline = True
    chain = sorted(
        (stage.model for stage in stages if stage.model.kind == "sr3"), key=lambda model: num_pixels(model.low_size)
    )
    return environment.get_template("model_card.md.j2").render(
        title=config.title or run.config.name,
        license=config.license,
        data=_wrapped(config.credits or run.provenance.get("imported", {}).get("trained_on", "")),
        limits=_wrapped(config.limits),
        weights=config.weights,
        times=f"{float(_times(chain)):g}" if chain else None,
        stages=[_stage(stage, "imported" in run.provenance) for stage in stages],
        evaluations=[_table(evaluation) for evaluation in evaluations],
        origin=_origin(run, stages),
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120)


def _stage(stage: StageRun, imported: bool) -> dict[str, str]:
    """A row of the table of networks; the file of an imported one may not say its step."""
    schedule = stage.schedule(few_steps=True)
    assert schedule is not None, "a stage that samples has a schedule"
    start = ", from the input" if schedule.sampler.start == "input" else ""
    batch, step = stage.config.batch_size, stage.weights.newest().step
    return {
        "name": stage.name,
        "draws": _target(stage.model),
        "parameters": f"{_num_parameters(stage.model) / 1e6:.2f} million",
        "trained": f"{step:,} steps of {batch} images" if step or not imported else "unknown",
        "inference": f"{schedule.num_steps} steps ({schedule.name}, {schedule.sampler.algorithm}{start})",
    }


def _target(model: ModelConfig) -> str:
    if model.kind == "base":
        return f"{rows_by_columns(model.high_size)} images"
    drawn = _DRAWN[model.objective.residual]
    crops = "" if model.crop_size is None else f", on crops of {describe(model.crop_size)}"
    sizes = f"{describe(model.low_size)} -> {describe(model.high_size)} pixels{crops}"
    return f"{drawn}, {float(model.scale):g} times larger; trained at {sizes}"


def _times(chain: Sequence[ModelConfig]) -> Fraction:
    return prod((model.scale for model in chain), start=Fraction(1))


def _num_parameters(model: ModelConfig) -> int:
    import torch

    from sr3core.networks.building import build_network
    from sr3core.networks.unet import num_parameters

    with torch.device("meta"):
        return num_parameters(build_network(model))


def _table(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation as a table: a row per method, a column per metric that one of them has."""
    methods: Sequence[Mapping[str, Any]] = evaluation["methods"]
    known = [name for name in _NUMBERS if any(name in method for method in methods)]
    rows = [
        {"name": _NAMES.get(method["name"], method["name"]), "cells": [_cell(name, method.get(name)) for name in known]}
        for method in methods
    ]
    setting = evaluation.get("setting") or f"Held-out images of the split {evaluation.get('split', 'test')!r}"
    return {
        "about": f"{setting}, n = {evaluation['num_images']}:",
        "headings": [_NUMBERS[name][0] for name in known],
        "rows": rows,
    }


def _cell(metric: str, value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    _, form, factor = _NUMBERS[metric]
    mean, *ends = (form.format(value[key] * factor) for key in ("mean", "low", "high") if key in value)
    return f"{mean} [{ends[0]}, {ends[1]}]" if ends else mean


def _origin(run: Run, stages: Sequence[StageRun]) -> dict[str, str]:
    """What identifies the training: configuration, data, code."""
    found = run.provenance
    facts = {
        "preset": run.config.name,
        "fingerprint of the configuration": found.get("fingerprint", "unknown"),
        "seed": str(stages[0].config.seed),
        "code": found.get("git_commit", "unknown"),
    }
    data = run.data_fingerprints or found.get("data_fingerprints", {})  # a model folder names no data of its own
    facts |= {f"prepared data {name}": value for name, value in sorted(data.items())}
    imported = found.get("imported", {})
    facts |= {name: imported[name] for name in ("source", "file", "sha256", "class") if imported.get(name)}
    return facts | {name: value for name, value in sorted(found.get("versions", {}).items()) if value != "absent"}
