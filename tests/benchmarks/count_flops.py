"""Count what the paper's four training runs cost: FLOPs of Table A.1's networks, H100-days, instances and money.

    python tests/benchmarks/count_flops.py

Networks are made on the meta device: nothing is computed. FlopCounterMode counts a forward pass (a multiply-add
is 2 FLOPs); a training step is three of them, since the backward pass is two; 1M steps of 256 images (section 4).
"""

import argparse

import torch

from sr3core.networks.architectures import unet_16_128, unet_64_256, unet_64_512, unet_256_1024
from sr3core.networks.flops import PEAK_FLOPS, TRAINING_FACTOR, forward_flops
from sr3core.networks.unet import UNet

STAGES = {"16-128": unet_16_128, "64-256": unet_64_256, "64-512": unet_64_512, "256-1024": unet_256_1024}
BATCH_SIZE, NUM_STEPS = 256, 1_000_000


def main() -> None:
    """Print a row a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the peak that training reaches")
    parser.add_argument("--dollars", type=float, default=4.0, help="price of one H100 for one hour")
    options = parser.parse_args()
    print(
        f"{'stage':<10}{'million':>9}{'GFLOP/image':>13}{'ZFLOP/run':>11}{'H100-days':>11}{'8 GPUs':>11}{'dollars':>10}"
    )
    total = 0.0
    for name, make in STAGES.items():
        with torch.device("meta"):
            parameters = sum(p.numel() for p in UNet(make()).parameters())
        image = forward_flops(make())
        run = image * TRAINING_FACTOR * BATCH_SIZE * NUM_STEPS
        days = run / (PEAK_FLOPS["H100"]["bfloat16"] * options.utilisation) / 86400
        total += days
        print(
            f"{name:<10}{parameters / 1e6:>9.1f}{image / 1e9:>13.1f}{run / 1e21:>11.2f}{days:>11.1f}"
            f"{days / 8:>7.1f} days{days * 24 * options.dollars:>10,.0f}"
        )
    print(f"together {total:.0f} H100-days, {total * 24 * options.dollars:,.0f} dollars")


if __name__ == "__main__":
    main()
