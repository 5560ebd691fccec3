"""MkDocs hook: the page of presets, from the presets."""

import inspect

import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from pipelines.settings.presets import PRESETS
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.hyperparameters import UNetConfig
from sr3core.networks.unet import UNet, num_parameters

INTRODUCTION = """# Presets

A preset is a configuration of one or more stages, by name: `sr3 train PRESET --data DIR --out RUN`. Those of the paper
take batch 256, a million steps and 8 GPUs a stage; the `small-` ones and `demo` learn in minutes on a CPU. Any setting
can be changed on the [command line](commands/train.md); `sr3 train PRESET --print-config` prints them all.
"""


def page() -> str:
    """The page, Markdown: a list, then each preset's stages."""
    lines = [INTRODUCTION, "| preset | what it trains |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {inspect.getdoc(make)} |" for name, make in PRESETS.items()]
    for name, make in PRESETS.items():
        lines += ["", f"## {name}", "", str(inspect.getdoc(make)), "", *_table(make())]
    return "\n".join(lines) + "\n"


def _table(run: RunConfig) -> list[str]:
    return [
        "| stage | model | parameters | loss | batch × steps | rate | blur | workers |",
        "|---|---|--:|---|---|---|---|---|",
        *(_row(stage) for stage in run.stages),
    ]


def _row(stage: TrainConfig) -> str:
    model, placement = stage.model, stage.placement
    classes = f", {model.unet.num_classes} classes" if model.unet.num_classes else ""
    loss = (
        f"L{model.objective.norm} on {model.objective.target}" if model.kind != "regression" else "mean squared error"
    )
    workers = f"{placement.num_workers} {'GPU' if placement.use_gpu else 'CPU'}"
    blur = f"{stage.augmentation.blur_probability:.0%}" if stage.augmentation.blur_probability else "–"
    return (
        f"| {stage.name} | {model.kind}{classes} | {_millions(model.unet):.2f} M | {loss}"
        f" | {stage.batch_size} × {stage.num_steps:,} | {stage.optimizer.learning_rate:g} | {blur} | {workers} |"
    )


def _millions(config: UNetConfig) -> float:
    with torch.device("meta"):
        return num_parameters(UNet(config)) / 1e6


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, "reference/presets.md", content=page()))
    return files
