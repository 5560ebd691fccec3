"""Peak memory of a training step on a CPU by what saves some: micro-batches, recomputed activations, bfloat16.

    python tests/benchmarks/bench_memory.py [--size 64] [--width 32] [--batch 16]

Every setting runs two steps in a process of its own, whose largest resident size is read before and after: what the
network, the average and Adam take is said apart. A minute or two.
docs/explanation/memory-and-speed.md has a table of it.
"""

import argparse
import json
import resource
import subprocess
import sys

import torch

from sr3core.batch import Batch
from sr3core.hyperparameters import ModelConfig, OptimizerConfig, Precision, UNetConfig
from sr3core.networks.execution import accelerate
from sr3core.networks.unet import num_parameters
from sr3core.training import Trainer, create_state

SETTINGS: dict[str, tuple[int, bool, Precision]] = {
    "plain": (1, False, "float32"),
    "4 micro-batches": (4, False, "float32"),
    "recomputed": (1, True, "float32"),
    "bfloat16": (1, False, "bfloat16"),
    "all three": (4, True, "bfloat16"),
}
"""Micro-batches, whether activations are recomputed, precision."""


_STATE_BYTES = 5 * 4
"""A parameter's weight, average, gradient and two moments, float32."""


def peak_bytes() -> int:
    """This process's largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(setting: str, size: int, width: int, batch: int) -> dict[str, float]:
    """MB of state, and of all else at the peak of a step."""
    micro_batches, recomputes, precision = SETTINGS[setting]
    torch.set_num_threads(1)
    unet = UNetConfig(image_size=size, base_channels=width, channel_multipliers=(1, 2, 4), num_res_blocks=2)
    model = ModelConfig(low_size=size // 4, high_size=size, unet=unet)
    state, trainer = create_state(model, OptimizerConfig(), 0), Trainer(model, OptimizerConfig(), 0)
    if recomputes:
        state.model.recompute_activations()
    network = accelerate(state.model, precision, None)
    warm = Batch(torch.zeros(1, 3, size // 4, size // 4), torch.zeros(1, 3, size, size), (0,))
    trainer.step(state, network, [warm])  # gradients and Adam's moments are there from now on
    before = peak_bytes()
    images = torch.zeros(batch, 3, size // 4, size // 4), torch.zeros(batch, 3, size, size)
    trainer.step(state, network, Batch(*images, tuple(range(batch))).split(micro_batches))
    return {
        "state, MB": _STATE_BYTES * num_parameters(state.model) / 1e6,
        "more at the peak, MB": (peak_bytes() - before) / 1e6,
    }


def main() -> None:
    """Print a JSON line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--setting", choices=SETTINGS, help="only this one, in this process")
    options = parser.parse_args()
    if options.setting:
        print(json.dumps({options.setting: measure(options.setting, options.size, options.width, options.batch)}))
        return
    for setting in SETTINGS:
        subprocess.run([sys.executable, *sys.argv, "--setting", setting], check=True)


if __name__ == "__main__":
    main()
