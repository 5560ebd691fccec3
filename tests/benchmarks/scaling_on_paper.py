"""What training the four networks of Table A.1 moves and costs on 8, 64 and 512 GPUs: arithmetic, no measurement.

    python tests/benchmarks/scaling_on_paper.py

Parameters and operations are counted on the meta device; the rates of the machines are the assumptions below.
docs/explanation/scaling.md holds the output and the formulas.
"""

import torch

from sr3core.networks import architectures
from sr3core.networks.flops import TRAINING_FACTOR, forward_flops
from sr3core.networks.unet import UNet, num_parameters
from sr3core.sizes import Size, num_pixels

NETWORKS = {
    "16-128": (architectures.unet_16_128, 16),
    "64-256": (architectures.unet_64_256, 64),
    "64-512": (architectures.unet_64_512, 64),
    "256-1024": (architectures.unet_256_1024, 256),
}
BATCH, STEPS = 256, 1_000_000
PEAK_FLOPS, UTILISATION = 989e12, 0.40
PNG_BYTES_PER_VALUE = 0.5
NVLINK_BYTES = 370e9
"""Bus bandwidth of an all-reduce within a node of 8 H100, bytes a second."""
NODE_BYTES = {"8 x 400 Gbit/s": 320e9, "100 Gbit/s": 10e9}
"""What leaves a node, 80% of the wire: a ring crosses its border once, so this is an all-reduce's bus bandwidth."""
STORE_BYTES = 1e9
"""Upload of one node to an object store, and download."""
GPUS_PER_NODE = 8


def all_reduce_seconds(parameters: int, gpus: int, node_bytes: float) -> float:
    """A ring over float32 gradients: each GPU sends and receives 2 (W - 1) / W times their bytes."""
    rate = NVLINK_BYTES if gpus <= GPUS_PER_NODE else min(NVLINK_BYTES, node_bytes)
    return 2 * (gpus - 1) / gpus * 4 * parameters / rate


def record_bytes(low: Size, high: Size) -> float:
    """A record's PNGs."""
    return 3 * (num_pixels(low) + num_pixels(high)) * PNG_BYTES_PER_VALUE


def main() -> None:
    print("| network | parameters, M | forward, GFLOP an image | H100-days | checkpoint, GB | record, KB |")
    print("|---|---|---|---|---|---|")
    counted = {}
    for name, (make, low) in NETWORKS.items():
        with torch.device("meta"):
            parameters = num_parameters(UNet(make()))
        flops = forward_flops(make())
        counted[name] = parameters, flops
        days = TRAINING_FACTOR * flops * BATCH * STEPS / (PEAK_FLOPS * UTILISATION) / 86_400
        size = record_bytes(low, make().image_size) / 1e3
        millions, giga = parameters / 1e6, flops / 1e9
        print(f"| {name} | {millions:.1f} | {giga:.0f} | {days:.0f} | {0.016 * millions:.1f} | {size:.0f} |")
    fabrics = " | ".join(f"all-reduce, ms ({name})" for name in NODE_BYTES)
    print(f"\n| network | GPUs | batch | compute, ms a step | {fabrics} | read, MB/s in all | days |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (make, low) in NETWORKS.items():
        parameters, flops = counted[name]
        for gpus in (8, 64, 512):
            batch = max(BATCH, gpus)  # a GPU needs an image
            compute = TRAINING_FACTOR * flops * batch / gpus / (PEAK_FLOPS * UTILISATION)
            reduces = [all_reduce_seconds(parameters, gpus, rate) for rate in NODE_BYTES.values()]
            step = max(compute, reduces[0])  # DDP reduces while the backward pass goes on
            read = batch * record_bytes(low, make().image_size) / step
            print(
                f"| {name} | {gpus} | {batch} | {1e3 * compute:.0f} | "
                + " | ".join(f"{1e3 * reduce:.0f}" for reduce in reduces)
                + f" | {read / 1e6:.0f} | {STEPS * step / 86_400 * BATCH / batch:.2f} |"
            )
    print("\ncheckpoint: " + ", ".join(f"{n} {16 * p / STORE_BYTES:.0f} s" for n, (p, _) in counted.items()))


if __name__ == "__main__":
    main()
