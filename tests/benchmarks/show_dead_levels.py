"""What silent branches cost: networks of the presets' depth, at reduced width, by unet.branch_init and Adam's epsilon.

    python tests/benchmarks/show_dead_levels.py --depth 64-256 --init 0 1 --epsilon 1e-8 1e-12 --steps 1500

A network of Table A.1's levels and blocks, with a few channels and small images, learns to enlarge the demo's photos by
the paper's objective. A line of JSON an arm and twelfth of the steps: held-out loss (the same images, noise and levels
for all arms; the weights themselves, no average), the variance that reaches each level, and the share of the weights in
the coarser half of the levels whose gradients have a root mean square under Adam's epsilon, which outweighs them.

An arm of 2,000 steps takes about five minutes of a core. Losses of one depth can be compared with each other alone.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch

from pipelines.images.decoding import decode_image
from sr3core.batch import Batch
from sr3core.config import override
from sr3core.hyperparameters import ModelConfig, OptimizerConfig, UNetConfig
from sr3core.images.pixels import largest_central_crop, to_float
from sr3core.images.resize import resize_area, resize_bicubic
from sr3core.networks.architectures import unet_16_128, unet_64_256, unet_64_512, unet_256_1024
from sr3core.networks.level_variances import level_variances
from sr3core.networks.unet import UNet
from sr3core.sizes import sides_of
from sr3core.training import Trainer, TrainState, create_state

PHOTOS = Path(__file__).resolve().parents[2] / "pipelines" / "demo_photos"
HELD_OUT = 64

DEPTHS = {
    "16-128": (unet_16_128(), 8, 32, 8),
    "64-256": (unet_64_256(), 4, 32, 8),
    "64-512": (unet_64_512(), 8, 64, 4),
    "256-1024": (unet_256_1024(), 4, 128, 4),
}
"""Network, scale, and the side of the images and the width of the first layer that stand for the network's own."""


def reduced(depth: str, branch_init: float) -> ModelConfig:
    """A network of the preset's levels and blocks; attention is at the same level."""
    paper, scale, size, width = DEPTHS[depth]
    whole, _ = sides_of(paper.image_size)
    unet: UNetConfig = override(
        paper,
        image_size=size,
        base_channels=width,
        dropout=0.0,
        attention_sizes=tuple(side * size // whole for side in paper.attention_sizes),
        branch_init=branch_init,
    )
    return ModelConfig(low_size=size // scale, high_size=size, unet=unet)


def photos(size: int) -> np.ndarray:
    """The demo's photos, (N, size, size, 3) uint8."""
    found = (largest_central_crop(decode_image(path.read_bytes()).pixels) for path in sorted(PHOTOS.glob("*.jpg")))
    return np.stack([resize_area(pixels, size) for pixels in found])


def batch_of(high: np.ndarray, low_size: int) -> Batch:
    """Images and their inputs."""
    low = np.stack([resize_bicubic(image, low_size) for image in high])
    return Batch(to_float(low), to_float(high), tuple(range(len(high))))


def held_out(trainer: Trainer, state: TrainState, batch: Batch) -> tuple[float, dict[str, float]]:
    """Mean loss, and the variance that reaches each level."""
    with torch.no_grad(), level_variances(state.model) as found:
        loss = trainer.losses(state.model, batch, 0, purpose_seed=1).values.mean()
    return float(loss), {name: float(variance) for name, variance in found.items()}


def starved(network: UNet, epsilon: float) -> float:
    """Share of the weights of the coarser levels whose gradients Adam's epsilon outweighs."""
    levels = network.config.channel_multipliers
    whole, _ = sides_of(network.config.image_size)
    sizes = [whole // 2**n for n in range(len(levels) // 2, len(levels))]
    parts = [
        (weight.numel(), float(weight.grad.square().mean().sqrt()))
        for name, weight in network.named_parameters()
        if weight.grad is not None and any(f".{side}x{side}_" in f".{name.partition('.')[2]}" for side in sizes)
    ]
    return sum(n for n, size in parts if size < epsilon) / sum(n for n, _ in parts)


def train(depth: str, branch_init: float, epsilon: float, seed: int, options: argparse.Namespace) -> None:
    """One arm; prints its lines."""
    model = reduced(depth, branch_init)
    warmup = options.steps // 10
    optimizer = OptimizerConfig(learning_rate=options.rate, warmup_steps=warmup, ema_decay=0.0, epsilon=epsilon)
    state, trainer = create_state(model, optimizer, seed), Trainer(model, optimizer, seed)
    images = photos(sides_of(model.high_size)[0])
    low_size, _ = sides_of(model.low_size or 0)
    test, rest = batch_of(images[:HELD_OUT], low_size), images[HELD_OUT:]
    order = np.random.Generator(np.random.Philox(seed))
    for step in range(options.steps + 1):
        if step % (options.steps // 12) == 0:
            loss, variances = held_out(trainer, state, test)
            arm = {"depth": depth, "branch_init": branch_init, "epsilon": epsilon, "seed": seed}
            line = arm | {"step": step, "loss": loss}
            share = None if step == 0 else starved(state.model, epsilon)
            print(json.dumps(line | {"starved": share, "variances": variances}), flush=True)
        chosen = batch_of(rest[order.choice(len(rest), options.batch, replace=False)], low_size)
        trainer.step(state, state.model, [chosen])


def main() -> None:
    """Train every arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", nargs="+", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument("--init", nargs="+", type=float, default=[0.0, 1.0])
    parser.add_argument("--epsilon", nargs="+", type=float, default=[1e-8])
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for arm in product(options.depth, options.init, options.epsilon, options.seed):
        train(*arm, options)


if __name__ == "__main__":
    main()
