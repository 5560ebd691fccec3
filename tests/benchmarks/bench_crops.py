"""What a step on crops costs against one on whole images: operations, bytes decoded and copied, memory, and time.

    python tests/benchmarks/bench_crops.py [--rounds 5] [--width 8]

Counts are those of the presets: operations of the network on torch's meta device, pixels that are decoded and sent to
the device. Times are those of a Trainer's step and of its parts, on a CPU, at a width that a CPU can bear: rounds of
crops and whole images alternate, and medians are compared. Two or three minutes.
docs/explanation/memory-and-speed.md has a table of it.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch

from pipelines.settings.presets import preset
from pipelines.settings.train import TrainConfig
from pipelines.training.resources import memory_of
from sr3core.batch import Batch
from sr3core.config import override
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.images.crops import draw_corner, enlarge
from sr3core.networks.flops import TRAINING_FACTOR, forward_flops
from sr3core.sizes import num_pixels, sides_of
from sr3core.training import Trainer, create_state

STAGES = {
    "64-512": (preset("faces-64-512").stages[0], preset("faces-512-crops").stages[0]),
    "256-1024": (preset("faces-16x").stages[1], preset("faces-1024-crops").stages[0]),
}
"""Trained on whole images, and on crops."""


def counts(stage: TrainConfig) -> dict[str, float]:
    """Of an image's visit, and the memory of a step."""
    model, channels = stage.model, 3
    assert model.low_size is not None
    return {
        "Tflop": TRAINING_FACTOR * forward_flops(model.unet) / 1e12,
        "MB decoded": channels * (num_pixels(model.high_size) + num_pixels(model.low_size)) / 1e6,
        "MB sent to the device": channels * (num_pixels(model.unet.image_size) + num_pixels(model.low_size)) / 1e6,
        "GB on a GPU without micro-batches": memory_of(override(stage, num_micro_batches=1)).total / 1e9,
    }


def batch_of(model: ModelConfig) -> Batch:
    """One image."""
    assert model.low_size is not None
    side = model.unet.image_size
    corner = draw_corner(model.high_size, side, model.scale.numerator, 0, 0, 0)
    images = torch.zeros(1, 3, *sides_of(model.low_size)), torch.zeros(1, 3, *sides_of(side))
    return Batch(*images, (0,), corners=(corner,) if model.crop_size else ())


def step_of(model: ModelConfig) -> Callable[[], object]:
    """A training step on one image."""
    optimizer = OptimizerConfig(ema_decay=0.0)
    state, trainer, batch = create_state(model, optimizer, 0), Trainer(model, optimizer, 0), batch_of(model)
    return lambda: trainer.step(state, state.model, [batch])


def enlarging(model: ModelConfig) -> Callable[[], object]:
    """x_up of one image, which is whole for crops too."""
    batch = batch_of(model)
    assert batch.low is not None
    return lambda: enlarge(batch.low, model.high_size, batch.corners, model.unet.image_size)  # type: ignore[arg-type]


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Print the counts, then the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.stage:
        for kind, stage in zip(("whole", "crops"), STAGES[name], strict=True):
            print(json.dumps({"stage": name, "of": kind, **counts(stage)}), flush=True)
        narrow = {"base_channels": options.width, "head_channels": None}
        models = [override(stage.model, **{f"unet__{k}": v for k, v in narrow.items()}) for stage in STAGES[name]]
        works = [step_of(models[0]), step_of(models[1]), enlarging(models[1])]
        rounds = [[seconds(work) for work in works] for _ in range(options.rounds + 1)][1:]  # the first one warms up
        whole, crops, x_up = (median(times) for times in zip(*rounds, strict=True))
        found = {"whole, s": whole, "crops, s": crops, "of that x_up, s": x_up, "whole / crops": whole / crops}
        print(json.dumps({"stage": name, "width": options.width, **found}), flush=True)


if __name__ == "__main__":
    main()
